import hashlib
import os
import sys
from functools import partial

import pytest
from raising import raising

from kdcli import registry
from kdcli.errors import MissingError, PluginError, ProfileError, each
from kdcli.parts import processes
from kdcli.registry import plugin as code_files

STUDENT = """
from pydantic import BaseModel
api_version = {version}
pairs = scores = True
class Options(BaseModel):
    width: int = 3
    depth: int = 1
def build(options, task, vocabulary_size, vectors, dimension): ...
"""
GOOD = STUDENT.format(version=2)


def test_listing_and_finding_import_nothing(make_plugin):
    make_plugin("kd-bad", "[kdcli.students]\nbad = kd_bad_module\n", "raise RuntimeError('no')", module="kd_bad_module")
    names = [plugin.name for plugin in registry.plugins("students")]
    assert names == ["bad", "bilstm", "dan", "kimcnn"]
    assert registry.find("students", "bad").distribution == "kd-bad"
    assert "kd_bad_module" not in sys.modules


def test_unreadable_metadata_is_one_warning(make_plugin):
    make_plugin("kd-torn", "[kdcli.students]\nthis is no entry point\n")
    with pytest.warns(UserWarning, match="kd_torn.*metadata cannot be read") as warned:
        for group in registry.GROUPS:
            registry.plugins(group)
    assert len(warned) == 1
    assert [plugin.name for plugin in registry.plugins("students")] == ["bilstm", "dan", "kimcnn"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('no GPU today\\n\\nSee there')", "cannot be imported: RuntimeError: no GPU today"),
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError"),
        ("def build(: pass", "cannot be imported: SyntaxError"),
        (STUDENT.format(version=3), "is written for api_version 3; this kd has 2"),
        (STUDENT.format(version="True"), "is written for api_version True; this kd has 2"),
        (GOOD.replace("api_version", "version"), "lacks api_version; this kd has 2"),
        ("api_version = 2\npairs = True", "lacks Options, build, scores"),
        (GOOD.replace("class Options(BaseModel)", "class Options"), "which must be a Pydantic model class"),
        (GOOD + "Options = Options()", "which must be a Pydantic model class"),
        (GOOD + "build = 3", "has build = 3, which must be a function"),
        (GOOD + "import json.decoder as fast", "has fast = <module 'json.decoder'"),
        (GOOD + "pairs = 'yes'\nscores = 0", "has pairs = 'yes', which must be True or False, and has scores = 0"),
    ],
)
def test_broken_plugin_is_an_error_only_when_chosen(make_plugin, code, says):
    make_plugin("kd-bad", "[kdcli.students]\nbad = kd_bad_module\n", code, module="kd_bad_module")
    with raising(PluginError, hint="pip uninstall kd-bad", says=(says, "kd-bad:bad")):
        registry.load("students", "bad")
    assert registry.load("students", "bilstm").api_version == 2


@pytest.mark.parametrize(
    "entry_point", ["kd_gone", "kd_gone.inner", "kd_there.inner", "kd_there : Options.made", "kd_there:build"]
)
def test_an_entry_point_to_nothing(make_plugin, entry_point):
    make_plugin("kd-bad", f"[kdcli.students]\nbad = {entry_point}\n", GOOD, module="kd_there")
    with raising(PluginError, "cannot be imported|lacks api_version", hint="pip uninstall kd-bad"):
        registry.load("students", "bad")


def test_what_goes_wrong_inside_a_plugin_is_blamed_on_it_but_what_it_says_itself_is_not(make_plugin):
    make_plugin("kd-good", "[kdcli.students]\ngood = kd_good\n", GOOD, module="kd_good")
    said = "the student plugin kd-good:good failed in build: LookupError: a word"
    with raising(PluginError, what=said, hint="--debug") as caught, registry.blaming("students", "good", "build"):
        raise LookupError("a word\nand more")
    assert isinstance(caught.value.__cause__, LookupError)
    for own in (MissingError("no jax"), KeyError("fine"), KeyboardInterrupt()):
        with pytest.raises(type(own)), registry.blaming("students", "good", "build", but=(KeyError,)):
            raise own
    failed = pytest.raises(PluginError, match="failed in build: SystemExit: 3")
    with failed, registry.blaming("students", "good", "build"):
        sys.exit(3)


def test_errors_of_an_installed_plugin_name_the_line(make_plugin):
    site = make_plugin("kd-bad", "[kdcli.students]\nbad = kd_bad\n", "\nimport nowhere_to_be_found", module="kd_bad")
    with raising(PluginError, row=2, file=site / "kd_bad.py", hint="pip uninstall kd-bad"):
        registry.load("students", "bad")
    code = GOOD.replace("dimension): ...", "dimension):\n    return {}[task]")
    site = make_plugin("kd-good", "[kdcli.students]\ngood = kd_good\n", code, module="kd_good")
    module, row = registry.load("students", "good"), code.splitlines().index("    return {}[task]") + 1
    failed = raising(PluginError, "failed in build: KeyError", file=site / "kd_good.py", row=row, hint="--debug")
    with failed, registry.blaming("students", "good", "build"):
        module.build({}, 1, 2, 3, 4)


@pytest.fixture
def code(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


TAGGER = "api_version = 2\ndef tag(texts):\n    return [['X' for word in words] for words in texts]\n"


def test_a_file_is_a_plugin_of_what_it_holds_and_is_not_run_before_it_is_chosen(code):
    path = code(TAGGER + "import os\nos.environ['KD_RAN'] = 'yes'\n")
    code_files.use([path])
    plugin = registry.find("taggers", "mine")
    assert (plugin.full_name, plugin.module, plugin.file) == ("mine.py:mine", str(path), path)
    assert plugin.version == hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert "KD_RAN" not in os.environ
    assert registry.load("taggers", "mine").tag([["a", "b"]]) == [["X", "X"]]
    assert os.environ.pop("KD_RAN")
    groups = [group for group in registry.GROUPS if "mine" in {one.name for one in registry.plugins(group)}]
    assert groups == ["taggers"]
    assert not (path.parent / "__pycache__").exists()


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("def build(): ...", ["students"]),
        ("def fine_tune(): ...\ndef load(): ...", ["generators"]),
        ("from other import tag", ["taggers"]),
        ("import other.build as build", ["students"]),
        ("tag = build = None", ["students", "taggers"]),
    ],
)
def test_the_group_of_a_file(code, text, groups):
    code_files.use([code(text)])
    found = [plugin.group for group in registry.GROUPS for plugin in registry.plugins(group) if plugin.file]
    assert sorted(found) == groups


def test_a_changed_file_is_another_version_and_is_run_again(code):
    path = code(TAGGER)
    code_files.use([path])
    before = registry.versions("taggers", "mine")
    code(TAGGER.replace("'X'", "'Y'"))  # as long as before, and perhaps in the same second
    os.utime(path, ns=(1, 1))
    assert registry.versions("taggers", "mine") != before
    assert registry.load("taggers", "mine").tag([["a"]]) == [["Y"]]
    path = code(TAGGER)
    code_files.use([path])
    with processes(1) as pool:
        assert pool.submit(registry.code_of, "taggers", "mine").result() == {"mine.py": path}


@pytest.mark.parametrize(
    ("name", "text", "says", "hint"),
    [
        ("mine.py", "x = 1", "no plugin", "load (a teacher)"),
        ("mine.py", "def tag(:\n", "no Python: invalid syntax", "python mine.py"),
        ("mine.py", "\0", "no Python: source code string cannot contain null bytes", "python mine.py"),
        ("mine.txt", TAGGER, "no name for a plugin's file", ".py"),
        ("my.tagger.py", TAGGER, "no name for a plugin's file", "letters"),
    ],
)
def test_files_that_are_no_plugins(code, name, text, says, hint):
    path = code(text, name)
    with raising(PluginError, file=path, what=says, hint=hint):
        code_files.use([path])
    assert "KD_CODE" not in os.environ


def test_files_that_the_environment_names_from_here_are_found_from_elsewhere(code, tmp_path, monkeypatch):
    paths = [code(TAGGER), code(TAGGER, "other.py")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KD_CODE", "mine.py")
    code_files.use(["other.py", "mine.py"])
    monkeypatch.chdir("/")
    assert [file.path for file in code_files.read_code_files()] == paths


def test_a_file_that_is_not_there_and_two_of_one_name(code, tmp_path):
    with pytest.raises(PluginError, match=r"no such plugin file \(file .*nowhere\.py"):
        code_files.use(["nowhere.py"])
    one, other = code(TAGGER), code(TAGGER, "sub/mine.py")
    code_files.use([one, one])
    assert registry.find("taggers", "mine").file == one
    code_files.use([other])
    with raising(PluginError, "2 tagger plugins are named mine", what=(str(one), str(other))):
        registry.find("taggers", "mine")


def test_errors_of_a_file_name_the_line(code):
    path = code(TAGGER + "def inner():\n    return 1 / 0\ninner()\n")
    code_files.use([path])
    with raising(PluginError, "cannot be imported: ZeroDivisionError", row=5, file=path, hint=f"fix {path}"):
        registry.load("taggers", "mine")
    code(TAGGER.replace("return", "1 / 0;"))
    tagger = registry.load("taggers", "mine")
    failed = raising(PluginError, "failed in tag: ZeroDivisionError", file=path, row=3)
    with failed, registry.blaming("taggers", "mine", "tag"):
        tagger.tag([["a"]])


@pytest.mark.parametrize(
    ("find", "name", "hint"),
    [
        (partial(registry.find, "students"), "sub/mine.py", "mine --code sub/mine.py"),
        (registry.find_all, "sub/mine.py", "mine --code sub/mine.py"),
        (partial(registry.load, "students"), "bilsmt", "did you mean bilstm?"),
        (partial(registry.find, "students"), "xyzzy", "add --code xyzzy.py"),
    ],
)
def test_unknown_names(find, name, hint):
    with raising(PluginError, hint=hint):
        find(name)


def test_a_clash_is_an_error(make_plugin):
    make_plugin("Other.Kd", "[kdcli.students]\ngru = kd_other\n", GOOD, module="kd_other")
    make_plugin("kd-gru", "[kdcli.students]\ngru = kd_gru\n", GOOD, module="kd_gru")
    for find in (partial(registry.load, "students"), registry.find_all):
        with pytest.raises(PluginError, match=r"are named gru: Other\.Kd:gru and kd-gru"):
            find("gru")


def test_kds_own_comes_before_others_of_its_name(make_plugin, code):
    make_plugin("Other.Kd", "[kdcli.students]\nbilstm = kd_other\n", GOOD, module="kd_other")
    code_files.use([code(GOOD, "bilstm.py")])
    with pytest.warns(UserWarning, match="kd's own student, not Other.Kd:bilstm and .*bilstm.py"):
        assert registry.load("students", "bilstm").__name__ == "kd_bilstm"


def test_careless_plugins_one_that_lacks_an_extra_and_options_that_fail(make_plugin):
    make_plugin("kd-lax", "[kdcli.students]\nlax = kd_lax\n", STUDENT.format(version=2), module="kd_lax")
    assert registry.options("students", "lax", {"width": 5}).model_dump() == {"width": 5, "depth": 1}
    with pytest.raises(ProfileError) as caught:
        registry.options("students", "lax", {"widht": 5, "depth": "x"})
    assert {mistake.key for mistake in each(caught.value)} == {"students.lax.widht", "students.lax.depth"}
    code = "from kdcli.api import MissingError\nraise MissingError('no jax', hint='pip install kd-jax[jax]')"
    make_plugin("kd-jax", "[kdcli.students]\njax = kd_jax_module\n", code, module="kd_jax_module")
    with raising(MissingError, hint="pip install kd-jax[jax]"):
        registry.load("students", "jax")
    code = """
from pydantic import ConfigDict, field_validator
class Options(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    width: int = 3
    odd: object = object()
    @field_validator("width")
    @classmethod
    def _width(cls, value):
        return value / (value - 5)
"""
    make_plugin("kd-odd", "[kdcli.students]\nodd = kd_odd\n", GOOD + code, module="kd_odd")
    with pytest.raises(PluginError, match="kd-odd:odd failed in Options: ZeroDivisionError"):
        registry.options("students", "odd", {"width": 5})
    with pytest.raises(PluginError, match="kd-odd:odd failed in Options: PydanticSerializationError"):
        registry.options("students", "odd", {})
