import json
import subprocess
import sys

import pytest

from kdcli import registry
from kdcli.errors import MissingError, PluginError, ProfileError
from kdcli.mistakes import each

STUDENT = """
from pydantic import BaseModel
api_version = {version}
pairs = scores = True
class Options(BaseModel):
    width: int = 3
    depth: int = 1
def build(options, task, vocabulary_size, vectors, dimension): ...
"""


def test_builtin_plugins_come_from_metadata():
    assert [plugin.full_name for plugin in registry.plugins("students")] == ["kdcli:bilstm"]
    assert [plugin.name for plugin in registry.plugins("taggers")] == ["nltk", "pattern"]
    assert registry.find("taggers", "nltk").module == "kd_taggers.nltk_perceptron"


def test_listing_and_finding_import_nothing(make_plugin):
    make_plugin("kd-bad", "[kdcli.students]\nbad = kd_bad_module\n", "raise RuntimeError('no')", module="kd_bad_module")
    names = [plugin.name for plugin in registry.plugins("students")]
    assert names == ["bad", "bilstm"]
    assert registry.find("students", "bad").distribution == "kd-bad"
    assert "kd_bad_module" not in sys.modules


def test_unreadable_metadata_is_one_warning(make_plugin):
    make_plugin("kd-torn", "[kdcli.students]\nthis is no entry point\n")
    with pytest.warns(UserWarning, match="kd_torn.*metadata cannot be read") as warned:
        for group in registry.GROUPS:
            registry.plugins(group)
    assert len(warned) == 1
    assert [plugin.name for plugin in registry.plugins("students")] == ["bilstm"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('no GPU today')", "cannot be imported: RuntimeError: no GPU today"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError"),
        ("def build(: pass", "cannot be imported: SyntaxError"),
        (STUDENT.format(version=2), "is written for api_version 2; this kd has 1"),
        ("api_version = 1\npairs = True", "lacks Options, build, scores"),
    ],
)
def test_broken_plugin_is_an_error_only_when_chosen(make_plugin, code, says):
    make_plugin("kd-bad", "[kdcli.students]\nbad = kd_bad_module\n", code, module="kd_bad_module")
    with pytest.raises(PluginError) as caught:
        registry.load("students", "bad")
    assert says in str(caught.value) and "kd-bad:bad" in str(caught.value)
    assert "pip install -U kd-bad" in caught.value.hint
    assert says in registry.broken(registry.find("students", "bad"))
    assert registry.load("students", "bilstm").api_version == 1


def test_plugin_that_lacks_an_extra_says_so_itself(make_plugin):
    code = "from kdcli.api import MissingError\nraise MissingError('no jax', hint='pip install kd-jax[jax]')"
    make_plugin("kd-jax", "[kdcli.students]\njax = kd_jax_module\n", code, module="kd_jax_module")
    with pytest.raises(MissingError) as caught:
        registry.load("students", "jax")
    assert caught.value.hint == "pip install kd-jax[jax]"


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(PluginError) as caught:
        registry.load("students", "bilsmt")
    assert caught.value.hint == "did you mean bilstm?"
    with pytest.raises(PluginError) as caught:
        registry.find("students", "xyzzy")
    assert "installed: bilstm" in caught.value.hint


def test_clash_is_an_error_that_the_full_name_resolves(make_plugin):
    make_plugin("Other.Kd", "[kdcli.students]\nbilstm = kd_other\n", STUDENT.format(version=1), module="kd_other")
    with pytest.raises(PluginError) as caught:
        registry.load("students", "bilstm")
    assert "2 student plugins are named bilstm" in str(caught.value)
    assert "Other.Kd:bilstm or kdcli:bilstm" in caught.value.hint
    assert registry.load("students", "other-kd:bilstm").__name__ == "kd_other"
    assert registry.load("students", "kdcli:bilstm").__name__ == "kd_bilstm"
    assert registry.find("taggers", "nltk")


def test_same_distribution_twice_on_the_path_is_no_clash(make_plugin):
    old = make_plugin("kd-two", "[kdcli.students]\ntwo = kd_two\n", version="1.0")
    new = make_plugin("kd-two", "[kdcli.students]\ntwo = kd_two\n", version="2.0")
    assert sys.path.index(str(new)) < sys.path.index(str(old))
    assert registry.find("students", "two").version == "2.0"


def test_options_reports_every_wrong_key():
    with pytest.raises(ProfileError) as caught:
        registry.options("students", "bilstm", {"hiden": 3, "fc": "wide", "dropout": 2, "hidden": 7})
    found = {mistake.key: mistake for mistake in each(caught.value)}
    assert set(found) == {"students.bilstm.hiden", "students.bilstm.fc", "students.bilstm.dropout"}
    assert found["students.bilstm.hiden"].hint == "did you mean students.bilstm.hidden?"


def test_options_of_a_careless_plugin_refuse_unknown_keys_too(make_plugin):
    make_plugin("kd-lax", "[kdcli.students]\nlax = kd_lax\n", STUDENT.format(version=1), module="kd_lax")
    assert registry.options("students", "lax", {"width": 5}).model_dump() == {"width": 5, "depth": 1}
    with pytest.raises(ProfileError) as caught:
        registry.options("students", "lax", {"widht": 5, "depth": "x"})
    assert {mistake.key for mistake in each(caught.value)} == {"students.lax.widht", "students.lax.depth"}


def test_builtin_plugins_cost_nothing_to_check():
    code = """
import json, sys
from kdcli import registry
for group in registry.GROUPS:
    for plugin in registry.plugins(group):
        module = registry.load(group, plugin.full_name)
registry.options("students", "bilstm", {})
print(json.dumps([name for name in ("torch", "nltk", "textblob", "transformers", "pyarrow") if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
