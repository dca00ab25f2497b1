import json
from dataclasses import replace

import polars as pl
import pytest
from raising import raising

from kdcli.api import Corpus, Part, Samples, Task
from kdcli.config.schema import Settings
from kdcli.errors import DataError, PluginError
from kdcli.files import check_output, foreign
from kdcli.transfer.heavy import CacheResult, GeneratorRun, cache, read_corpus, read_prefixes

TASK = Task("films", "single", ("0", "1"))
CORPUS = Corpus("single", ["b one", "a two", "b three"], ["dev"])

ECHO = """
from pydantic import BaseModel, ConfigDict
from kdcli.api import Samples

api_version = 2
seen = []

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = 3

def fine_tune(corpus, checkpoint, settings, reporter):
    seen.append(("fine_tune", settings))
    checkpoint.mkdir()
    (checkpoint / "texts").write_text("\\n".join(corpus.train))
    return {"dev_bits_per_character": 1.5, "width": settings.options.width}

def load(checkpoint, settings, reporter):
    seen.append(("load", settings))
    return Sampler()

class Sampler:
    def prefixes(self, corpus):
        first = sorted({text[0] for text in corpus.train})
        return {"letters": first, "counts": [sum(t[0] == f for t in corpus.train) for f in first], "note": "letters"}

    def sample(self, prefixes, part):
        return Samples([f"{prefixes['letters'][0]} {part.first + i}" for i in range(part.count)], {})
"""


@pytest.fixture
def echo(make_plugin):
    def install(old="", new=""):
        make_plugin("kd-echo", "[kdcli.generators]\necho = kd_echo\n", ECHO.replace(old, new), module="kd_echo")

    return install


def chosen(generator="echo", **generators):
    transfer = {"generator": generator, "heavy": {"top_k": 5, "temperature": 0.5, "batch_size": 7}}
    settings = Settings.model_validate({"transfer": transfer, "generators": generators, "precision": "bf16"})
    return GeneratorRun.of(settings, TASK, device="cuda:1", seed=9, resume=False)


def test_all_that_a_profile_says_reaches_the_plugin(echo, tmp_path):
    echo()
    import kd_echo

    generator = chosen("echo", echo={"width": 4})
    result = generator.fine_tune(CORPUS, tmp_path / "generator")
    sampler = generator.load(tmp_path / "generator")
    assert (result.generator, result.texts) == ("echo", 3)
    assert result.metrics == {"dev_bits_per_character": 1.5, "width": 4}
    (_, trained), (_, loaded) = kd_echo.seen
    assert replace(loaded, device=trained.device) == trained  # where this machine lacks it, it is loaded on the CPU
    found = (trained.kind, trained.seed, trained.device, trained.precision, trained.resume, trained.options.width)
    assert found == ("single", 9, "cuda:1", "bf16", False, 4)
    assert (trained.temperature, trained.top_k, trained.top_p, trained.batch_size) == (0.5, 5, 1.0, 7)
    assert isinstance(sampler, kd_echo.Sampler)


def test_only_files_that_came_with_the_run_are_kds(echo, tmp_path):
    """A plugin writes its checkpoint itself: a file of the user in that folder is not recorded."""
    echo("checkpoint.mkdir()", "checkpoint.mkdir(exist_ok=True)")
    folder = tmp_path / "generator"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "texts").write_text("half of it, by a run that was killed")
    for _ in range(2):
        chosen().fine_tune(CORPUS, folder)
        assert foreign(folder) == ["notes.txt"]
    with pytest.raises(DataError, match="notes"):
        check_output(folder, force=True)
    (folder / "notes.txt").unlink()
    check_output(folder, force=True)


def test_what_a_plugin_leaves_when_it_fails_is_kds(echo, tmp_path):
    echo("return {", "1 / 0\n    return {")
    with pytest.raises(PluginError):
        chosen().fine_tune(CORPUS, tmp_path / "generator")
    check_output(tmp_path / "generator", force=True)


def test_prefixes_are_json_and_the_fingerprint_has_what_samples_depend_on(echo, tmp_path):
    echo()
    generator = chosen()
    generator.fine_tune(CORPUS, tmp_path / "generator")
    result = generator.prefixes(CORPUS, tmp_path / "generator", tmp_path / "prefixes.json")
    prefixes = {"letters": ["a", "b"], "counts": [1, 2], "note": "letters"}
    assert read_prefixes(tmp_path / "prefixes.json") == prefixes
    assert (result.texts, result.sizes) == (3, {"letters": 2, "counts": 2})
    assert result.first == {"letters": ["a", "b"], "counts": [1, 2]}
    assert isinstance(generator.load(tmp_path / "generator").sample(prefixes, Part(0, 2, 1)), Samples)
    plain = chosen().fingerprint()
    assert plain["generators.echo.width"] == 3
    assert (plain["device"], plain["top_k"], plain["seed"]) == ("cuda", 5, 9)
    assert "resume" not in plain
    assert json.loads(json.dumps(plain)) == plain
    assert chosen(echo={"width": 4}).fingerprint() == plain | {"generators.echo.width": 4}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    checkpoint.mkdir()\n", "    return {}\n", "left no checkpoint"),
        ("1.5", "{1.5}", "JSON values: Object of type set"),
        ('    seen.append(("fine_tune"', '    1 / 0, (("fine_tune"', "failed in fine_tune: ZeroDivisionError"),
        ("    return Sampler()", "    return [][0]", "failed in load: IndexError: list index"),
        ("    def sample(", "    def draw(", "loads a Sampler, which has no sample"),
        ("first = sorted", "first = corpus.nothing and sorted", "failed in prefixes: AttributeError: 'Corpus'"),
        ('        return {"letters"', '        return [first]\n        return {"l"', "from prefixes no mapping"),
    ],
)
def test_a_plugin_that_breaks_the_contract(echo, tmp_path, old, new, says):
    echo(old, new)
    generator = chosen()
    with raising(PluginError, says, says="the generator plugin kd-echo:echo"):
        generator.fine_tune(CORPUS, tmp_path / "generator")
        generator.prefixes(CORPUS, tmp_path / "generator", tmp_path / "prefixes.json")
    assert not (tmp_path / "prefixes.json").exists()


@pytest.mark.parametrize("content", ['{"letters": ["a"', "[1, 2]", '"abc"', "7", "", b"\xff\xfe"])
def test_a_damaged_file_of_prefixes(tmp_path, content):
    path = tmp_path / "prefixes.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with raising(DataError, "not a file of prefixes", file=path, hint="--only prefixes --force"):
        read_prefixes(path)


PAIR = Task("pairs", "pair", ("no", "yes"))
TRAIN = pl.DataFrame({"sentence": [" a good film", "dull plot ", " \t", "two\nlines"], "label": ["1", "0", "1", "0"]})
DEV = pl.DataFrame({"sentence": ["dev one", "dev two"], "label": ["1", "0"]})
TEST = pl.DataFrame({"sentence": ["test one", None, "test two"], "label": pl.Series([None] * 3, dtype=pl.String)})
ALL = {"train": TRAIN, "dev": DEV, "test": TEST}


def corpus_of(folder, splits, task=TASK, **how):
    result = cache(splits=splits, task=task, output=folder / "cache.parquet", **how)
    return result, read_corpus(folder / "cache.parquet", task)


def test_texts_by_split_without_the_blank_ones(tmp_path, notes):
    result, corpus = corpus_of(tmp_path, ALL, reporter=notes)
    assert result == CacheResult(train=3, dev=2, test=2, blank=2, characters=59, words=15)
    assert [warning[:7] for warning in notes.warnings] == ["2 rows "]
    assert corpus.train == ["a good film", "dull plot", "two lines"]
    assert (corpus.kind, corpus.dev, corpus.test) == ("single", ["dev one", "dev two"], ["test one", "test two"])


def test_pairs_have_exactly_one_tab_and_a_label_may_be_chosen(tmp_path):
    rows = [("a\tb", "c\td\n", "no"), ("", "right", "yes"), ("left", " \t", "no"), ("e", "f", "yes")]
    train = pl.DataFrame(rows, schema=["sentence1", "sentence2", "label"], orient="row")
    result, corpus = corpus_of(tmp_path, {"train": train, "dev": train}, PAIR)
    assert corpus.train == corpus.dev == ["a b\tc d", "e\tf"]
    assert (result.train, result.test, result.blank, corpus.test) == (2, 0, 4, [])
    result, corpus = corpus_of(tmp_path, ALL, labels=["0"])
    assert (corpus.train, corpus.dev) == (["dull plot", "two lines"], ["dev two"])
    assert corpus.test == ["test one", "test two"], "the test texts have no labels to choose by"
    assert (result.train, result.blank) == (2, 1)


@pytest.mark.parametrize(
    ("splits", "labels", "says"),
    [
        ({"train": pl.DataFrame({"sentence": [" "], "label": ["1"]}), "dev": DEV}, (), "the train set has no texts"),
        ({"train": TRAIN}, (), "the dev set has no texts"),
        ({"train": TRAIN, "dev": DEV[:1]}, ("0",), "the dev set has no texts of label 0"),
        (ALL, ("2",), "the train set has no texts of label 2"),
    ],
)
def test_an_empty_corpus_is_an_error(tmp_path, splits, labels, says):
    with raising(DataError, says, key="transfer.heavy.labels" if labels else None):
        corpus_of(tmp_path, splits, labels=labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["missing", "cut", "another table", "pairs"])
def test_what_is_no_cache_is_an_error_that_names_the_command(tmp_path, how):
    path = tmp_path / "cache.parquet"
    cache(splits=ALL, task=TASK, output=path)
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif how == "another table":
        TRAIN.write_parquet(path)
    with raising(DataError, file=path, hint="--only cache --force"):
        read_corpus(path, PAIR if how == "pairs" else TASK)
