"""Broken plugins: an error that names the plugin, exit code 5, and nothing half done."""

import pytest
from e2e.conftest import refused

GENERATOR = """
from pydantic import BaseModel, ConfigDict
from kdcli.api import Samples
api_version = 2

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

def fine_tune(corpus, checkpoint, settings, reporter):
    checkpoint.mkdir()
    return {}

class Sampler:
    def prefixes(self, corpus):
        return {"first": corpus.train[0]}

    def sample(self, prefixes, part):
        return Samples([f"text {part.first + draw}" for draw in range(part.count)], {})

def load(checkpoint, settings, reporter):
    return Sampler()
"""
TEXTS = '[f"text {part.first + draw}" for draw in range(part.count)]'


@pytest.fixture
def install(make_plugin):
    def make(code, name="kd-bad", group="generators", entry_point=""):
        module = f"{name.replace('-', '_')}_module"
        make_plugin(name, f"[kdcli.{group}]\nbad = {entry_point or module}\n", code, module=module)

    return make


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("from pydantic import", "import nowhere_at_all\nfrom pydantic import", "ModuleNotFoundError: No module named"),
        ("(BaseModel)", "", "Options that are no Pydantic model class"),
        ("    return {}", "    return 1 / 0", "failed in fine_tune: ZeroDivisionError"),
        ('{"first": corpus.train[0]}', "{1, 2}", "set"),
        ("Samples([", "([", "tuple"),
        (TEXTS, "corpus", "failed in sample: NameError"),
    ],
)
def test_a_bad_generator(tiny, install, old, new, says):
    assert old in GENERATOR
    install(GENERATOR.replace(old, new))
    ended = tiny.stage("transfer", "heavy", "--generator", "bad")
    refused(ended, 5, says, "the generator plugin kd-bad:bad")
    assert not (tiny.run_dir / "transfer" / "heavy.parquet").exists()


def test_debug_shows_where_a_plugin_failed(tiny, install):
    install(GENERATOR.replace("    return {}", "    return 1 / 0"))
    ended = tiny.stage("transfer", "heavy", "--generator", "bad", "--debug")
    assert ended.code == 5 and "return 1 / 0" in ended.err and "Traceback" in ended.err


def test_a_tagger_with_too_few_tags(tiny, install):
    install("api_version = 2\ndef tag(texts):\n    return [words[1:] for words in texts]\n", group="taggers")
    ended = tiny.stage("transfer", "lite", "--set", "transfer.lite.tagger=bad")
    refused(ended, 5, "the tagger plugin kd-bad:bad")


def test_a_broken_plugin_beside_is_nothing_unless_it_is_strict(tiny, install, monkeypatch):
    install("raise RuntimeError('no')", group="students")
    ended = tiny.stage("transfer", "lite")
    assert ended.code == 0 and "warning" not in ended.err
    monkeypatch.setenv("KD_STRICT_PLUGINS", "1")
    refused(tiny.stage("transfer", "lite"), 5, "the student plugin kd-bad:bad cannot be imported: RuntimeError: no")
    monkeypatch.setenv("KD_LOAD_PLUGINS", "")
    assert tiny.stage("transfer", "lite").code == 0


def test_bad_files(tiny, tmp_path):
    path = tmp_path / "own.py"
    refused(tiny.kd("plugins", "list", "--code", path), 5, "no such plugin file", "own.py")
    path.write_text("x = 1")
    refused(tiny.kd("profile", "list", "--code", path), 5, "this file is no plugin", "own.py")
