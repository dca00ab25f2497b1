"""The road to the samples, with a generator of somebody else's: ``kd`` knows none by name."""

import json

import pytest

from kdcli.api import Corpus, Part, Samples, Task
from kdcli.config.schema import Settings
from kdcli.errors import DataError, PluginError, ProfileError
from kdcli.transfer.heavy import Road, read_prefixes

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
    def starts(self, corpus):
        first = sorted({text[0] for text in corpus.train})
        return {"letters": first, "counts": [sum(t[0] == f for t in corpus.train) for f in first], "note": "letters"}

    def sample(self, starts, part):
        return Samples([f"{starts['letters'][0]} {part.first + i}" for i in range(part.count)], {})
"""


@pytest.fixture
def echo(make_plugin):
    """Install the generator ``echo`` of the distribution ``kd-echo``, changed as the test wants."""

    def install(old="", new=""):
        make_plugin("kd-echo", "[kdcli.generators]\necho = kd_echo\n", ECHO.replace(old, new), module="kd_echo")

    return install


def road(generator="echo", **generators) -> Road:
    transfer = {"generator": generator, "heavy": {"top_k": 5, "temperature": 0.5, "batch_size": 7}}
    settings = Settings.model_validate({"transfer": transfer, "generators": generators, "precision": "bf16"})
    return Road.of(settings, TASK, device="cuda:1", seed=9, resume=False)


@pytest.mark.parametrize("name", ["echo", "kd-echo:echo"])
def test_all_that_a_profile_says_reaches_the_plugin(echo, tmp_path, name):
    echo()
    import kd_echo

    way = road(name, echo={"width": 4})
    result = way.fine_tune(CORPUS, tmp_path / "generator")
    sampler = way.load(tmp_path / "generator")
    assert (result.generator, result.texts) == (name, 3)
    assert result.metrics == {"dev_bits_per_character": 1.5, "width": 4}
    (_, trained), (_, loaded) = kd_echo.seen
    assert trained == loaded
    found = (trained.kind, trained.seed, trained.device, trained.precision, trained.resume, trained.options.width)
    assert found == ("single", 9, "cuda:1", "bf16", False, 4)
    assert (trained.temperature, trained.top_k, trained.top_p, trained.batch_size) == (0.5, 5, 1.0, 7)
    assert isinstance(sampler, kd_echo.Sampler)


def test_prefixes_are_json_and_shown_in_short(echo, tmp_path):
    echo()
    way = road()
    way.fine_tune(CORPUS, tmp_path / "generator")
    result = way.prefixes(CORPUS, tmp_path / "generator", tmp_path / "prefixes.json")
    starts = {"letters": ["a", "b"], "counts": [1, 2], "note": "letters"}
    assert json.loads((tmp_path / "prefixes.json").read_text()) == read_prefixes(tmp_path / "prefixes.json") == starts
    assert (result.texts, result.sizes) == (3, {"letters": 2, "counts": 2})
    assert result.first == {"letters": ["a", "b"], "counts": [1, 2]}
    assert isinstance(way.load(tmp_path / "generator").sample(starts, Part(0, 2, 1)), Samples)


def test_the_fingerprint_has_what_samples_depend_on_and_nothing_else(echo):
    echo()
    plain = road().fingerprint()
    assert plain["generators.echo.width"] == 3
    assert (plain["device"], plain["top_k"], plain["seed"]) == ("cuda", 5, 9)
    assert "resume" not in plain
    assert json.loads(json.dumps(plain)) == plain
    assert road(echo={"width": 4}).fingerprint() == plain | {"generators.echo.width": 4}


def test_a_wrong_option_names_its_key(echo):
    echo()
    with pytest.raises(ProfileError) as error:
        road(echo={"widht": 4})
    assert error.value.key == "generators.echo.widht" and "width" in error.value.hint


def test_a_generator_that_is_not_there():
    with pytest.raises(PluginError, match="no generator plugin is named nobody"):
        road("nobody")


def test_one_without_what_it_needs(echo, tmp_path):
    echo("def load", "def laod")
    with pytest.raises(PluginError, match="lacks load"):
        road()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    checkpoint.mkdir()\n", "    return {}\n", "left nothing"),
        ("1.5", "{1.5}", "no JSON: Object of type set"),
        ('    return {"dev_bits_per_character": 1.5, "width": settings.options.width}\n', "", "no table, but NoneType"),
        (
            '    seen.append(("fine_tune", settings))\n',
            "    1 / 0\n",
            "failed in fine_tune: ZeroDivisionError: division",
        ),
        ("    return Sampler()", "    return [][0]", "failed in load: IndexError: list index"),
        ("    return Sampler()", "    pass", "loads a NoneType, which has no starts and no sample"),
        ("    def sample(", "    def draw(", "loads a Sampler, which has no sample"),
        (
            "        first = sorted",
            "        first = corpus.nothing and sorted",
            "failed in starts: AttributeError: 'Corpus'",
        ),
        (
            '        return {"letters": first',
            '        return [first]\n        return {"l": first',
            "no table, but list",
        ),
        ('"letters": first', '"letters": set(first)', "no JSON: Object of type set"),
    ],
)
def test_a_plugin_that_breaks_the_contract(echo, tmp_path, old, new, says):
    echo(old, new)
    way = road()
    with pytest.raises(PluginError, match=says) as error:
        way.fine_tune(CORPUS, tmp_path / "generator")
        way.prefixes(CORPUS, tmp_path / "generator", tmp_path / "prefixes.json")
    assert "the generator plugin kd-echo:echo" in str(error.value)
    assert not (tmp_path / "prefixes.json").exists()


@pytest.mark.parametrize("content", ['{"letters": ["a"', "[1, 2]", '"abc"', "7", "", b"\xff\xfe"])
def test_a_damaged_file_of_prefixes(tmp_path, content):
    path = tmp_path / "prefixes.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match="no file of prefixes") as error:
        read_prefixes(path)
    assert error.value.file == str(path)
    assert "--only prefixes --force" in error.value.hint


def test_a_file_of_prefixes_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no file of prefixes"):
        read_prefixes(tmp_path / "prefixes.json")
