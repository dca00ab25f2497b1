from pathlib import Path

import pytest

FORBID = 'model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)'
VERSION = "api_version = API_VERSION"
MODULES = [
    ("loads", VERSION, "api_version = 3", "written for api_version 3"),
    ("loads", VERSION, "", "lacks api_version"),
    ("loads", "def build(", "def builds(", "one that lacks build"),
    ("loads", "class Options(BaseModel)", "class Options", "which must be a Pydantic model class"),
    ("loads", "scores = True", "scores = True\nfast = 3", "has fast = 3"),
    ("options", FORBID, FORBID + "\n    deep: int", "(key deep)"),
    ("cheap import", "from typing", "import torch\nfrom typing", "came torch too: import that inside the functions"),
]
MAKE = "checkpoint.mkdir(parents=True, exist_ok=True)"
BITS = "    def bits(self, texts):\n        return [float(len(texts))] * len(texts)\n\n    def _text"
GENERATORS = [
    ("fine tune", '{"texts": len(corpus.train)}', '{"texts": {1}}', "JSON values; came {'texts': {1}}"),
    ("fine tune", MAKE, "return {}", "came nothing there"),
    ("load", "return Splicer(texts, settings.options.words)", "return 3", "has no attribute 'prefixes'"),
    ("load", 'return {"beginnings": [', 'return {"none": {1}, "beginnings": [', "prefixes to return a mapping of JSON"),
    ("sample", "in range(part.count)", "in range(part.count - 3)", "asked for 48 draws, and accounts for 45"),
    ("sample", 'if end else ""', 'if not end else ""', "came 0 of 0, and rejected: {'nothing to go on with': 48"),
    ("sample", "[beginning, *end]", '[beginning + "\\t"[: len(beginning) % 3], *end]', "a tab in a single text"),
    ("sample", "[beginning, *end]", '" "', "'blank': 48"),
    ("same in another process", "random.Random(seed)", "random.Random(hash(seed))", "no hash()"),
    ("same in another process", "random.Random(seed)", "random.Random()", "no clock"),
    ("pairs", '"\\t".join([beg', '" ".join([beg', "'not two texts with one tab': 48"),
    ("pairs", f"    {MAKE}", f"    if checkpoint.exists():\n        return {{}}\n    {MAKE}", "pairs with one tab"),
    ("pairs", "parents=True, exist_ok=True", "", "came FileExistsError"),
    ("bits", "    def _text", BITS, "finite bits for each text, whatever the other texts"),
]
LOGITS = "return logits"
IDLE = "self.idle = nn.Linear(2, 2)\n            self.logits = nn"
STUDENTS = [
    ("build", "torch.tensor(vectors)", "torch.tensor(vectors) + __import__('random').random()", "draw with torch"),
    ("training", LOGITS, "return logits[:, :1]", "logits [64, 2], [batch, task.outputs] (single sentences, 2 cl"),
    ("training", "self.logits = nn", IDLE, "idle.weight, idle.bias"),
    ("training", "torch.tensor(vectors)", "torch.from_numpy(vectors)", "the given word vectors to stay"),
    ("padding", LOGITS, "return nn.functional.dropout(logits, 0.5)", "no dropout there"),
    ("padding", "lengths.to(words.device)[:, None])", "words.shape[1])", "padding to make no difference"),
    ("padding", LOGITS, "return logits - logits.mean(0)", "the other texts of a batch to make no difference"),
    ("save and load", "bias=options.bias", "bias=vectors is not None", "the same parameters and buffers"),
]
FAST = "from kd_bilstm import *\nimport kd_bilstm\n\n\ndef fast(options, task, weights):\n    {}\n"
MADE_FAST = "made = kd_bilstm.fast(options, task, weights)\n    return lambda words, lengths: "
MODELS = [
    ("fast", f"{MADE_FAST}made(words, lengths) + 1e-3", "0.001 of"),
    ("fast", f"{MADE_FAST}made(words, lengths)[0]", "came ndarray of float32 (2,)"),
    ("fast", f"{MADE_FAST}made(words, lengths).tolist()", "came list"),
    ("fast", f"{MADE_FAST}made(tuple(ids % 50 for ids in words), lengths)", "an IndexError for word 50"),
    ("fast without torch", "import torch\n    return kd_bilstm.fast(options, task, weights)", "it imports torch"),
]
TAGGERS = [
    ("one tag a word", "for word in words]", "for word in words if word.isalpha()]", "tags of"),
    ("one tag a word", "for words in texts]", "for words in texts if words]", "tags of 46 texts; came those of 45"),
    ("one tag a word", "return [", "[words[0] for words in texts]\n    return [", "IndexError: list index out of"),
    ("one tag a word", 'else "SYM"', "else 3", "which are texts; came ['NN',"),
    ("independent of neighbours", "return [[_tag(word)", "return [[_tag(word) + str(len(texts))", "the other texts"),
    ("same in another process", 'else "NN"', 'else f"NN{hash(word) % 9}"', "no order of a set, no hash()"),
]

TEACHER = Path(__file__).resolve().parents[2]
FOUND = "return found\n"
MADE = "return WeightedWords("
TEACHERS = [
    ("load", f"{MADE}tuple(read)", f"{MADE}list(read)", "a tuple of different names, empty for a score; came ['neg"),
    ("logits", FOUND, "return found.tolist()\n", "float32 (47, 2); came list"),
    ("logits", "if len(columns) > 1:", "assert len(columns) < 2\n        if 0:", "came AssertionError"),
    ("logits", "if len(columns) > 1", "if columns", "logits of single texts or of pairs; came single texts: this"),
    ("independent of neighbours", FOUND, "return found - found.max(0)\n", "whatever its batch"),
    ("independent of neighbours", FOUND, "return found + np.float32(batch)\n", "whatever its batch"),
    ("long texts", "self.cut += 1", "pass", "1 of 3 texts counted as cut, in windows too; came cut = 0"),
    ("long texts", ", max_length, source)", ", max_length * 2, source)", "the 48 tokens that teacher.max_length"),
    ("long texts", 'if long_texts != "cut"', "if max_length", "a teacher that reads 48 tokens; came this teacher cuts"),
    ("same in another process", "sha256(self.source).hexdigest()", "''", "a fingerprint that is a text"),
    ("same in another process", "sha256(self.source).hexdigest()", "str(hash('x'))", "same fingerprint in every"),
    ("same in another process", FOUND, "return found + np.float32(hash('x') % 9973)\n", "no order of a set, no hash()"),
]


def check(outcome, says):
    assert outcome.result == "failed", outcome
    assert outcome.detail.startswith("expected ") and "; came " in outcome.detail
    assert "see docs/plugins.md, " in outcome.detail
    assert says in outcome.detail, outcome.detail


CASES = [
    *(("students", *case) for case in (*MODULES, *STUDENTS)),
    *(("generators", *case) for case in GENERATORS),
    *(("taggers", *case) for case in TAGGERS),
]


@pytest.mark.parametrize(("group", "name", "old", "new", "says"), CASES)
def test_a_broken_plugin(broken, outcome_of, group, name, old, new, says):
    check(outcome_of(group, name, broken((old, new))), says)


@pytest.mark.parametrize(("name", "code", "says"), MODELS)
def test_a_broken_fast(broken, outcome_of, name, code, says):
    check(outcome_of("students", name, broken(source=FAST.format(code)), hidden=4, fc=4), says)


@pytest.mark.parametrize(("name", "old", "new", "says"), TEACHERS)
def test_a_broken_teacher(broken, outcome_of, name, old, new, says):
    made = broken((old, new), source=(TEACHER / "weighted_words.py").read_text())
    check(outcome_of("teachers", name, made, model=str(TEACHER / "words.toml")), says)


def test_options_without_a_description(broken, outcome_of):
    found = outcome_of("students", "options", broken(("use_attribute_docstrings=True", "")))
    check(found, "a description of each option")
