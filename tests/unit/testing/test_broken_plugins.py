"""Each check can fail: a plugin that is broken in one thing fails the check of that thing."""

from pathlib import Path

import pytest

ANY = "students"
FORBID = 'model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)'

VERSION = "api_version = API_VERSION"
MODULES = [
    ("api version", VERSION, "api_version = 3", "api_version = 2; came a module that is written for"),
    ("api version", VERSION, "", "lacks api_version"),
    ("members", "def build(", "def builds(", "one that lacks build"),
    ("members", "pairs = True", "pairs = 'yes'", "has pairs = 'yes'"),
    ("members", "class Options(BaseModel)", "class Options", "Options that are no Pydantic model"),
    ("members", "scores = True", "scores = True\nfast = 3", "a fast that is no function"),
    ("cheap import", "from typing", "import torch\nfrom typing", "came torch too: import that inside the functions"),
    ("options given", FORBID, FORBID + "\n    deep: int", "(key deep)"),
    ("options unknown", 'extra="forbid", ', "", "takes no_such_option"),
    ("options wrong", "bias: bool = True", "bias: object = True", "came bias, which takes anything"),
    ("options described", "use_attribute_docstrings=True", "", "a description of each option"),
]
MAKE = "checkpoint.mkdir(parents=True, exist_ok=True)"
COUNT = '{"nothing to go on with": texts.count("")}'
JOIN = '"\\t".join([beg'
BITS = "    def bits(self, texts):\n        return [1.0]\n\n    def _text"
GENERATORS = [
    ("fine tune", '{"texts": len(corpus.train)}', '{"texts": {1}}', "JSON values; came {'texts': {1}}"),
    ("fine tune", MAKE, "return {}", "came nothing there"),
    ("load", "return Splicer(texts, settings.options.words)", "return 3", "3 without prefixes, sample"),
    ("load", 'return {"beginnings": [', 'return {"none": {1}, "beginnings": [', "prefixes to return JSON values"),
    ("load of another folder", "except (OSError, ValueError)", "except EOFError", "DataError for a folder"),
    ("load of another folder", "    try:\n", "    raise MemoryError\n    try:\n", "came MemoryError; see"),
    ("sample", "return Samples([", "return tuple, ([", "came a sampler that returns no Samples, but tuple"),
    ("sample", "in range(part.count)", "in range(part.count - 3)", "asked for 48 draws, and accounts for 45"),
    ("sample", 'if end else ""', 'if not end else ""', "came all 48 rejected"),
    ("sample", COUNT, '{"empty": 0, 3: 0.0}', "rejected are no counts by reason, but {'empty': 0, 3: 0.0}"),
    ("sample", '{"nothing to go on with": texts', "{3: texts", "by reason, each a str; came the reasons [3]"),
    ("sample", "[beginning, *end]", '[beginning + "\\ud800", *end]', "half of a surrogate pair"),
    ("sample", "[text for text in texts if text],", "dict.fromkeys(texts),", "texts are no list"),
    ("small part", "range(part.count)", "range(max(part.count, 9))", "asked for 1 draws, and accounts for 9"),
    ("deterministic", "random.Random(seed)", "random.Random()", "the same part, whatever was drawn before"),
    ("save and load", '{part.first + draw}"', '{part.first + draw} {id(self)}"', "when it is loaded again"),
    ("same in another process", "random.Random(seed)", "random.Random(hash(seed))", "no hash()"),
    ("other parts", "{part.first + draw}", "{draw}", "other texts of the next part; came the same"),
    ("other parts", '"{part.seed} {', '"{', "other texts of another seed; came the same"),
    ("divided part", "{part.first + draw}", "{part.first} {draw}", "of 48 texts the same in two parts"),
    ("sound texts", "[beginning, *end]", '[beginning + "\\t"[: len(beginning) % 3], *end]', "without tabs"),
    ("sound texts", "[beginning, *end]", '[beginning + "\\u2028", *end]', "line ends; came"),
    ("sound texts", "[beginning, *end]", '" "', "not blank"),
    ("pairs", JOIN, '" ".join([beg', "exactly one tab in a pair"),
    ("pairs", '.partition("\\t")[0], other', '.partition("\\t")[0] + "\\n", other', "no line end; came 48 of 48"),
    ("pairs", f"    {MAKE}", f"    if checkpoint.exists():\n        return {{}}\n    {MAKE}", "exactly one tab"),
    ("fine tune again", "parents=True, exist_ok=True", "", "replace what an earlier one has left"),
    ("bits", "    def _text", BITS, "came list of shape None"),
]
LOGITS = "return logits"
ONE_COLUMN = "[(batch.words[0], batch.lengths[0])] * len(batch.words)"
IDLE = "self.idle = nn.Linear(2, 2)\n            self.logits = nn"
STUDENTS = [
    ("build", "return Average()", "return None", "torch.nn.Module (single sentences, 2 classes); came NoneType"),
    ("build", "return Average()", "return Average().requires_grad_(False)", "parameters to train"),
    ("build", "torch.tensor(vectors)", "torch.tensor(vectors) + __import__('random').random()", "draw with torch"),
    ("output shape", LOGITS, "return logits[:, 0]", "float32 logits [1, 2], [batch, task.outputs]"),
    ("output shape", LOGITS, "return logits / 0", "infinite ones or NaN"),
    ("gradient", "self.logits = nn", IDLE, "idle.weight, idle.bias"),
    ("training", "torch.tensor(vectors)", "torch.from_numpy(vectors)", "the given word vectors to stay"),
    ("deterministic", LOGITS, "return nn.functional.dropout(logits, 0.5)", "no dropout there"),
    ("every text counts", "zip(batch.words, batch.lengths, strict=True)", ONE_COLUMN, "depend on sentence2 (pairs,"),
    ("padding", "lengths.to(words.device)[:, None])", "words.shape[1])", "padding to make no difference"),
    ("padding", LOGITS, "return logits - logits.mean(0)", "the other texts of a batch to make no difference"),
    ("save and load", "bias=options.bias", "bias=vectors is not None", "the same parameters and buffers"),
]
BILSTM = "from kd_bilstm import *\nimport kd_bilstm\n\n\ndef {name}(options, task, weights):\n    {code}\n"
FAST = "compute = kd_bilstm.fast(options, task, weights)\n    return lambda *given: compute(*given)"
GRAPH = "weights['logits.bias'] += 0.1\n    return kd_bilstm.to_onnx(options, task, weights)"
MODELS = [
    ("fast", f"{FAST} + 1e-3", "0.001 of"),
    ("fast", f"{FAST}[0]", "came ndarray of float32 (2,)"),
    ("fast", f"{FAST}.tolist()", "came list"),
    ("fast without torch", "import torch\n    return kd_bilstm.fast(options, task, weights)", "it imports torch"),
    ("onnx graph", GRAPH, "the module's logits (single sentences, 2 classes); came 0.1 of difference"),
]
TAGGERS = [
    ("one tag a word", "for word in words]", "for word in words if word.isalpha()]", "tags of"),
    ("one tag a word", "for words in texts]", "for words in texts if words]", "tags of 46 texts; came those of 45"),
    ("one tag a word", "return [", "[words[0] for words in texts]\n    return [", "IndexError: list index out of"),
    ("one tag a word", 'else "SYM"', "else 3", "that are texts; came ['NN',"),
    ("deterministic", 'else "SYM"', "else f\"SYM{id(object())}{__import__('time').perf_counter()}\"", "the same tags"),
    ("independent of neighbours", "return [[_tag(word)", "return [[_tag(word) + str(len(texts))", "the other texts"),
    ("same in another process", 'else "NN"', 'else f"NN{hash(word) % 9}"', "no order of a set, no hash()"),
]

TEACHER = Path(__file__).resolve().parents[2]
FOUND = "return found\n"
MADE = "return WeightedWords("
TEACHERS = [
    ("load", MADE, "return (", "a teacher with logits and fingerprint; came ("),
    ("load", f"{MADE}tuple(read)", f"{MADE}list(read)", "a tuple of names, empty for a score; came ['negative'"),
    ("load", f"{MADE}tuple(read)", f"{MADE}('a', 'a')", "two or more different labels"),
    ("load", f"{MADE}tuple(read)", f"{MADE}('a',)", "two or more different labels"),
    ("load", "return len(self.source) / 1e6", "return None", "megabytes that is a number, 0 if unknown; came None"),
    ("load", "    cut: int = 0", "    cut: int = -1", "cut that is a number"),
    ("load", "_embeddings: int = 0", "_embeddings: int = 999", "of at most 30 parameters; came 999"),
    ("load of nothing", "if not path.ex", "assert path.exists()\n    if not path.ex", "there; came AssertionError"),
    ("load of nothing", "except (OSError, ValueError)", "except EOFError", "for an empty folder; came IsADir"),
    ("logits", FOUND, "return found.tolist()\n", "float32 (47, 2); came list"),
    ("logits", FOUND, "return found.astype(float)\n", "came float64 (47, 2)"),
    ("logits", FOUND, "return found[:, 0]\n", "came float32 (47,)"),
    ("logits", FOUND, "return found - np.inf\n", "logits that are finite"),
    ("logits", "if len(columns) > 1:", "assert len(columns) < 2\n        if 0:", "that refuses them; came AssertionE"),
    ("logits", "if len(columns) > 1", "if columns", "logits of single texts or of pairs; came single texts: this"),
    ("deterministic", FOUND, "self.n = getattr(self, 'n', 0) + 1\n        return found + np.float32(self.n)\n", "same"),
    ("independent of neighbours", FOUND, "return found - found.max(0)\n", "the batch of a text not to change"),
    ("independent of neighbours", FOUND, "return found + np.float32(batch)\n", "the batch of a text not to change"),
    ("long texts", "self.cut += 1", "pass", "1 of 3 texts counted as cut, in windows too; came cut = 0"),
    ("long texts", ", max_length, source)", ", max_length * 2, source)", "the 48 tokens that teacher.max_length"),
    ("long texts", 'if long_texts != "cut"', "if max_length", "a teacher that reads 48 tokens; came this teacher cuts"),
    ("fingerprint", "sha256(self.source).hexdigest()", "''", "a fingerprint that is a text"),
    ("fingerprint", "sha256(self.source)", "sha256(str(id(self)).encode())", "the same fingerprint for the same model"),
    ("same in another process", "sha256(self.source).hexdigest()", "str(hash('x'))", "same fingerprint in every"),
    ("same in another process", FOUND, "return found + np.float32(hash('x') % 99)\n", "no order of a set, no hash()"),
]


def check(outcome, result, says):
    assert outcome.result == result, outcome
    assert outcome.detail.startswith("expected ") and "; came " in outcome.detail
    assert "see docs/plugins.md, " in outcome.detail
    assert says in outcome.detail, outcome.detail


@pytest.mark.parametrize(("name", "old", "new", "says"), MODULES)
def test_modules(broken, outcome_of, name, old, new, says):
    check(outcome_of(ANY, name, broken(ANY, (old, new))), "failed", says)


@pytest.mark.parametrize(("name", "old", "new", "says"), GENERATORS)
def test_generators(broken, outcome_of, name, old, new, says):
    result = "warned" if name == "divided part" else "failed"
    check(outcome_of("generators", name, broken("generators", (old, new))), result, says)


@pytest.mark.parametrize(("name", "old", "new", "says"), STUDENTS)
def test_students(broken, outcome_of, name, old, new, says):
    check(outcome_of("students", name, broken("students", (old, new))), "failed", says)


@pytest.mark.parametrize(("name", "code", "says"), MODELS)
def test_other_forms_of_a_student(broken, outcome_of, name, code, says):
    function = "to_onnx" if name.startswith("onnx") else "fast"
    made = broken("students", source=BILSTM.format(name=function, code=code))
    check(outcome_of("students", name, made, hidden=4, fc=4), "failed", says)


def test_fast_that_minds_neither_weights_nor_words(broken, outcome_of):
    """Loading takes a ``ValueError`` for weights of another student: a word too many must be an ``IndexError``."""
    code = "made = kd_bilstm.fast(options, task, weights)\n    return lambda words, lengths: made({words}, lengths)"
    lax = code.format(words="tuple(ids % 50 for ids in words)")
    made = broken("students", source=BILSTM.format(name="fast", code=lax))
    says = "an IndexError for word 50, which has no vector (single sentences, 2 classes); came "
    check(outcome_of("students", "fast", made, hidden=4, fc=4), "failed", f"{says}no error")
    strict = code.format(words="words if max(map(np.max, words)) < 50 else int('x')")
    made = broken("students", source="import numpy as np\n" + BILSTM.format(name="fast", code=strict))
    check(outcome_of("students", "fast", made, hidden=4, fc=4), "failed", f"{says}ValueError: invalid literal")
    forgiving = code.format(words="words").replace(", weights)", ", {**made_of, **weights})", 1)
    forgiving = "made_of.update(weights)\n    " + forgiving
    made = broken("students", source="made_of = {}\n" + BILSTM.format(name="fast", code=forgiving))
    check(outcome_of("students", "fast", made, hidden=4, fc=4), "failed", "a ValueError for weights without")


def test_a_gradient_that_is_zero_is_a_warning(broken, outcome_of):
    """A softmax takes no notice of its scores' bias, and a gate begins with 0: both are right."""
    attention = (
        ("self.logits = nn", "self.key = nn.Linear(dimension, 1)\n            self.logits = nn"),
        ("means.append(vectors_there.sum(1) / lengths.to(words.device)[:, None])", "means.append(pooled)"),
        ("means.append", "scores = self.key(vectors_there).squeeze(2).masked_fill(~there, -1e9)\n{}means.append"),
        ("means.append", "pooled = (scores.softmax(1)[:, :, None] * vectors_there).sum(1)\n{}means.append"),
    )
    made = broken("students", *((old, new.format(" " * 16)) for old, new in attention))
    assert outcome_of("students", "gradient", made).result in ("passed", "warned")  # as rounding would have it
    gate = ("self.logits(torch", "self.gate * 0 + self.logits(torch")
    made = broken("students", ("self.logits = nn", "self.gate = nn.Parameter(torch.ones(1)); self.logits = nn"), gate)
    says = "a gradient that is not 0, unless it is meant to be (single sentences, 2 classes); came 0 at gate"
    check(outcome_of("students", "gradient", made), "warned", says)


def test_a_warning_of_one_kind_of_task_hides_no_failure_of_another(broken, outcome_of):
    idle = "self.gate = nn.Parameter(torch.ones(1)); self.logits = nn"
    use = "(self.gate * 0 if len(task.columns) == 1 else 0) + self.logits(torch"
    made = broken("students", ("self.logits = nn", idle), ("self.logits(torch", use))
    check(outcome_of("students", "gradient", made), "failed", "(pairs, 3 classes); came none at gate")


def test_imports_of_what_is_not_public_are_a_warning(broken, outcome_of):
    inside = "def later():\n    import kdcli.errors\n    from kdcli.tables.read import read_table\n"
    lines = (("api_version =", f"{inside}\n\napi_version ="),)
    found = outcome_of(ANY, "public imports", broken(ANY, *lines))
    check(found, "warned", "kd_broken.py, line ")
    assert "kdcli.errors" in found.detail and "kdcli.tables.read.read_table" in found.detail


def test_a_module_without_a_docstring_is_a_warning(broken, outcome_of):
    made = broken("taggers", source="api_version = 2\ndef tag(texts): return [['X'] * len(words) for words in texts]")
    check(outcome_of("taggers", "about", made), "warned", "whose first line `kd plugins show` prints; came none")


@pytest.mark.parametrize(("name", "old", "new", "says"), TAGGERS)
def test_taggers(broken, outcome_of, name, old, new, says):
    check(outcome_of("taggers", name, broken("taggers", (old, new))), "failed", says)


@pytest.mark.parametrize(("name", "old", "new", "says"), TEACHERS)
def test_teachers(broken, outcome_of, name, old, new, says):
    made = broken("teachers", (old, new), source=(TEACHER / "weighted_words.py").read_text())
    check(outcome_of("teachers", name, made, model=str(TEACHER / "words.toml")), "failed", says)


def test_a_teacher_that_does_not_read_is_a_warning(broken, outcome_of):
    source = (TEACHER / "weighted_words.py").read_text()
    made, model = broken("teachers", (FOUND, "return found * 0\n"), source=source), str(TEACHER / "words.toml")
    check(outcome_of("teachers", "every text counts", made, model=model), "warned", "that depend on the text (single")
    pairs = ("if len(columns) > 1", "if False")
    made = broken("teachers", pairs, source=source)
    says = "logits of pairs that depend on the second text"
    check(outcome_of("teachers", "every text counts", made, model=model), "warned", says)
