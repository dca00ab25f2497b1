import re
import shlex
from pathlib import Path

import pytest
import tomli
from hypothesis import given, strategies as st
from pydantic import BaseModel, Field, ValidationError
from raising import raising
from typer.main import get_command

from kdcli import registry
from kdcli.cli import Commands, app
from kdcli.config import files
from kdcli.config.load import load_profile, to_toml
from kdcli.config.schema import Settings
from kdcli.config.table import explain, options_of, unknown
from kdcli.errors import ProfileError, ValidationErrors, raise_all


def test_a_file_is_what_ends_in_toml_or_has_a_slash_and_an_unknown_name_suggests_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("my.toml").write_text("")
    assert files.find("my.toml") == Path("my.toml")
    assert files.find("./my.toml").exists()
    assert files.find("my.toml", beside=tmp_path) == files.find("~/my.toml") == tmp_path / "my.toml"
    with pytest.raises(ProfileError, match=r"no such profile file \(file other.toml\)"):
        files.find("other.toml")
    hints = {"my": "did you mean my.toml?", "stt2": "did you mean sst2?", "xyzzy": "base, cola, custom, demo"}
    for name, hint in hints.items():
        with raising(ProfileError, hint=hint):
            files.find(name)


@pytest.mark.parametrize("name", files.names())
def test_every_profile_loads_and_opens_with_purpose_time_score_and_command(name):
    profile = load_profile(name, environ={})
    assert profile.name == name
    lines = files.about(files.find(name)).splitlines()
    assert len(lines[0]) > 30
    described = {line.split()[0]: line for line in lines if line.startswith(("Time ", "Score ", "Run "))}
    assert set(described) == {"Time", "Score", "Run"}
    for command in re.findall(r"kd (?:run-all|profile)[^,:]*", described["Run"]):
        _, *arguments = shlex.split(command)
        root = get_command(app)
        with root.make_context("kd", list(arguments)) as context:
            _, chosen, rest = root.resolve_command(context, arguments)
            while isinstance(chosen, Commands):
                _, chosen, rest = chosen.resolve_command(context, rest)
            chosen.make_context("x", rest)


def test_base_is_the_defaults_and_names_every_setting():
    generators = {
        plugin.name: registry.options("generators", plugin.name, {}) for plugin in registry.plugins("generators")
    }
    tables = {name: options.model_dump(mode="json") for name, options in generators.items()}
    settings = load_profile(None, environ={}).settings
    assert load_profile("base", environ={}).settings == settings.model_copy(update={"generators": tables})
    path = files.find("base")
    values = tomli.loads(path.read_text("utf-8"))
    written = set(dict(_flat(values)))
    for name, table in tables.items():
        assert set(values["generators"][name]) == set(table)
    hidden = {"teacher.config", "teacher.export.precision", "students", "generators", "teachers"}
    described = {f"task.{key}" for key in re.findall(r"(?m)^# (\w+) = ", path.read_text("utf-8"))}
    assert {one.key for one in options_of(Settings)} - hidden <= written | described


def test_sst2_has_the_values_of_paper_a():
    settings = load_profile("sst2-paper", environ={}).settings
    lite, student = settings.transfer.lite, settings.student
    training = student.optimizer, student.learning_rate, student.decay, student.rho, student.batch_size, student.ema
    assert training == ("adadelta", 1.0, "none", 0.95, 50, 0.0)
    assert (lite.p_mask, lite.p_pos, lite.p_ngram, lite.ngram) == (0.1, 0.1, 0.25, "1:5")
    assert (student.kd_loss, student.kd_weight, student.ce_weight) == ("mse", 1.0, 0.0)
    assert settings.task.labels == ("0", "1") and settings.task.names == ("negative", "positive")


def _flat(table, prefix=""):
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


# TOML cannot hold lone surrogates; everything else must come back.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts
items = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
tables = st.dictionaries(texts, items | st.dictionaries(texts, items, max_size=3), max_size=4)


@given(tables, st.booleans())
def test_what_is_written_is_read_again(values, noted):
    notes = dict.fromkeys(values, "somewhere") if noted else {}
    assert tomli.loads(to_toml(values, notes)) == values


class Options(BaseModel):
    needed: int
    path: Path = Path("x")
    sizes: list[int] = Field(default_factory=lambda: [3, 4], description="How\n  wide.")


def test_defaults_are_json_and_those_that_are_made_are_made():
    found = {option.key: option for option in options_of(Options, "students.own.")}
    assert [(one.default, one.required) for one in found.values()] == [(None, True), ("x", False), ([3, 4], False)]
    sizes = found["students.own.sizes"]
    assert (sizes.type, sizes.about) == ("list of whole number", "How wide.")
    assert found["students.own.path"].type == "path"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_default_that_depends_on_another_option_is_none():
    class Deep(BaseModel):
        width: int = 3
        depth: int = Field(default_factory=lambda known: known["width"] + 1)

    assert [option.default for option in options_of(Deep)] == [3, None]


@pytest.mark.parametrize(
    ("values", "key", "what", "hint"),
    [
        ({"student": {"ema_": 1}}, "student.ema_", "unknown key", "did you mean student.ema?"),
        ({"max_rows": 1}, "max_rows", "unknown key", "did you mean teacher.max_rows?"),
        ({"lr": 1}, "lr", "unknown key", "did you mean teacher.lr or student.lr?"),
        ({"student": {"seed": 1}}, "student.seed", "unknown key", "did you mean seed?"),
        ({"join": {"zzz": 1}}, "join.zzz", "unknown key", "the keys of join are label, "),
        ({"student": {"rho": -1}}, "student.rho", "-1 should be greater than ", "student.rho: "),
        ({"student": {"kd_loss": "mes"}}, "student.kd_loss", "'mes' should be 'mse'", ""),
        ({"student": {"epochs": "big"}}, "student.epochs", "'big' should be a valid integer", ""),
        ({"task": {"labels": ["a", 3]}}, "task.labels", "3 should be a valid string", 'put it in quotes: "3"'),
        ({"task": {"labels": "a,b"}}, "task.labels", "'a,b' should be a list", 'write it as a list: ["a", "b"]'),
        ({"student": 3}, "student", "3 should be a table", ""),
        ({"task": {"labels": ["a"]}}, "task", "", ""),
    ],
)
def test_each_error_names_key_and_hint(values, key, what, hint):
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(values)
    (found,) = explain(caught.value, Settings)
    assert (found.key, found.what[: len(what)], found.hint[: len(hint)]) == (key, what, hint) and found.hint


def test_several_errors_are_together_and_a_table_may_take_no_keys():
    with pytest.raises(ValidationErrors, match=r"a \(key k\); b \(file f.toml\)"):
        raise_all([ProfileError("a", key="k"), ProfileError("b", file="f.toml")])

    class Empty(BaseModel):
        pass

    assert unknown("students.dan.x", Empty, "students.dan.").hint == "it takes no keys"
