import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from commands import all_commands, imported
from typer.main import get_command

import kdcli
from kdcli.cli import CODE, GLOBAL, TABLE, Commands, app, to_front, ui
from kdcli.config.schema import Settings, flags_of
from kdcli.config.table import options_of
from kdcli.errors import DataError

ROOT = get_command(app)
KD = [sys.executable, "-m", "kdcli"]
COMMANDS = dict(all_commands(ROOT))
every_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


def options(command):
    return [option for option in command.params if option.param_type_name == "option"]


def parse(arguments):
    """Let Typer parse a line, without running what it says."""
    command, rest = ROOT, list(arguments)
    with ROOT.make_context("kd", list(rest), resilient_parsing=True) as context:
        while isinstance(command, Commands):
            _, command, rest = command.resolve_command(context, rest)
        return command.make_context("x", rest).params


def test_every_command_is_in_the_table_and_every_setting_with_a_flag_an_option():
    groups = {path.rpartition(" ")[0] for path in TABLE} - {""}
    assert set(map(" ".join, COMMANDS)) | groups == set(TABLE)
    names = {name for command in COMMANDS.values() for option in options(command) for name in option.opts}
    tables = ["task", "transfer", "transfer.lite", "transfer.heavy", "transfer.corpus", "teacher", "teacher.export"]
    tables += ["join", "student", "seed", "device", "precision"]
    flags = [flag for table in tables for _, _, flag in flags_of(table)]
    assert len(flags) > 35
    assert {name for flag in flags for name in flag.names} <= names


@every_command
@pytest.mark.parametrize("flag", GLOBAL)
def test_global_flags_go_to_the_front_of_every_command(path, flag):
    for place in range(len(path) + 1):
        line = [*path[:place], flag, *path[place:]]
        assert to_front(ROOT, line) == ([flag], list(path))


@every_command
def test_no_flag_of_a_command_is_a_global_one_and_values_that_look_like_one_stay_where_they_are(path):
    names = [name for option in options(COMMANDS[path]) for name in (*option.opts, *option.secondary_opts)]
    assert not set(names) & {*GLOBAL, CODE}
    assert len(names) == len(set(names))
    for option in options(COMMANDS[path]):
        if option.is_flag:
            continue
        for name in option.opts:
            assert to_front(ROOT, [*path, name, "--json", "-q"]) == (["-q"], [*path, name, "--json"])
            if name.startswith("--"):
                assert to_front(ROOT, [*path, f"{name}=x", "--json"]) == (["--json"], [*path, f"{name}=x"])
            else:
                assert to_front(ROOT, [*path, f"{name}q", "--json"]) == (["--json"], [*path, f"{name}q"])


@pytest.mark.parametrize(
    ("line", "front", "rest"),
    [
        ("profile show base -- --json -q", "", "profile show base -- --json -q"),
        ("profile show -q -- --json", "-q", "profile show -- --json"),
        ("profile check base -s", "", "profile check base -s"),
        ("profile check --unknown --json", "--json", "profile check --unknown"),
        ("nonsense -x --json", "--json", "nonsense -x"),
        ("profile check -", "", "profile check -"),
        ("profile check base --code own.py -q", "--code=own.py -q", "profile check base"),
        ("--code=own.py predict -i x --code -q", "--code=own.py --code=-q", "predict -i x"),
        ("profile check base -s --code own.py", "", "profile check base -s --code own.py"),
    ],
)
def test_to_front(line, front, rest):
    assert to_front(ROOT, line.split()) == (front.split(), rest.split())


@pytest.mark.parametrize("line", ["--code= doctor", "profile list --code"])
def test_a_plugin_file_needs_a_name(line, kd):
    kd.says(2, "error: --code needs a value", *line.split())


def test_help_of_every_command_ends_with_an_example_that_parses():
    for path, command in {**COMMANDS, (): ROOT}.items():
        examples = re.findall(r"\[/bold\]  (kd .*)", command.epilog or "")
        assert examples, f"kd {' '.join(path)} has no example"
        for example in examples:
            _, *arguments = shlex.split(example)
            assert arguments[: len(path)] == list(path)
            parse(to_front(ROOT, arguments)[1])


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("student --kd-loss mes", "did you mean mse?\n"),
        ("student --seed one", "seed: Seed of every random draw.\n"),
        ("transfer lite --p-mask 0.9 --p-pos 0.2", "`kd profile show base` explains every key\n"),
        ("run-all --device tpu", "device: Where to compute: auto, cpu, cuda, cuda:N or mps; `auto` takes a GPU"),
    ],
)
def test_a_wrong_value_of_a_setting_s_option_is_a_usage_error(line, hint, kd):
    kd.says(2, f"\nhint: {hint}", *line.split(), "--dry-run")


def test_flags_of_a_generator_are_its_own_options(kd):
    says = "error: --lr: '-1' should be greater than 0\nhint: generators.mlm.lr: "
    kd.says(2, says, "transfer", "heavy", "--generator", "mlm", "--lr", "-1", "--dry-run")


def test_kd_alone_shows_help_a_group_alone_is_an_error_and_the_version(kd):
    assert "Usage: kd" in kd.ok()
    kd.says(2, "error: missing command\nhint: `kd profile --help`", "profile")
    assert kd.ok("--version") == f"kd {kdcli.__version__}\n"
    assert kd.ok("profile", "list", "-V", "--json") == {"version": kdcli.__version__}


HEAVY = ["torch", "transformers", "nltk", "polars", "pydantic", "pydantic_settings", "numpy", "scipy", "sklearn"]
HEAVY += ["accelerate", "datasets", "huggingface_hub", "jinja2", "matplotlib", "onnx", "onnxruntime", "pandas"]
HEAVY += ["requests", "sacremoses", "safetensors", "textblob", "threadpoolctl", "tokenizers", "urllib3"]
HEAVY += ["kdcli.config.schema", "kdcli.config.load", "kdcli.run.stages", "kdcli.cli.run_all", "kdcli.cli.eval"]


@pytest.mark.parametrize("line", ["--help", "", "transfer --help", "profile list", "plugins list", "data list --help"])
def test_help_and_listings_import_nothing_heavy(line):
    """Typer itself imports Pydantic when it runs a command."""
    assert imported(HEAVY, *line.split())[0] <= (set() if line in ("--help", "") else {"pydantic"})


def test_completion_imports_nothing_heavy():
    environ = {"_KD_COMPLETE": "complete_bash", "COMP_WORDS": "kd profile sh", "COMP_CWORD": "2"}
    assert imported(HEAVY, **environ)[0] <= {"pydantic"}


@pytest.mark.parametrize("path", [(), *COMMANDS], ids=" ".join)
def test_help_has_no_words_of_typers_own(path, kd):
    """No type in brackets, no range, no braces, no default in parentheses, no second name of a switch that is off."""
    code, shown, _ = kd(*path, "-h", "--json", "-q")
    assert code == 0 and " ".join(["Usage: kd", *path, ""]) in " ".join(shown.split())
    odd = re.findall(r"<\S+>|\{|\}|list\[|\[x|default: \(|False|None|the table \.| \.\n", shown)
    off = [name for one in COMMANDS.get(path, ROOT).params if one.default is False for name in one.secondary_opts]
    assert odd + [name for name in off if name in shown] == []


OWN = {
    "transfer lite": ["transfer.lite"],
    "transfer heavy": ["transfer.heavy", "transfer.generator", "device", "precision"],
    "transfer corpus": ["transfer.corpus", "transfer.generator", "device", "precision"],
    "teacher train": ["teacher", "device", "precision"],
    "teacher export": ["teacher.max_length", "teacher.export", "device"],
    "join": ["join"],
    "student": ["student", "device"],
    "distil": ["deferral.agree", "transfer.choose", "device", "precision"],
    "predict": ["deferral.agree", "device", "precision"],
}
"""The settings that such a command reads, beside those of the task, the seed and the engine."""


@every_command
def test_options_of_settings_belong_to_the_command(path):
    named = {one.key.replace(".", "_"): one.key for one in options_of(Settings)}
    known = [named[one.name] for one in options(COMMANDS[path]) if one.name in named]
    helps = " ".join(one.help for one in options(COMMANDS[path]))
    known += re.findall(r"\b(?:task|transfer|teacher|join|student)\.[a-z_.]*[a-z_]", helps)
    allowed = ("task", "seed", "engine", "ray_address", *OWN.get(" ".join(path), ("device", "precision")))
    assert [key for key in known if not any(f"{key}.".startswith(f"{table}.") for table in allowed)] == []


@pytest.mark.parametrize(
    ("line", "value"), [("", None), ("--rescale", True), ("--no-rescale", False), ("--rescale --no-rescale", False)]
)
def test_a_setting_that_is_true_or_false_is_a_switch(line, value):
    assert parse(["join", *line.split()])["join_rescale"] is value


@pytest.mark.parametrize(
    ("line", "code", "says", "hint"),
    [
        ("profil", 2, "no such command 'profil'. Did you mean 'profile'?", "`kd --help` shows what it takes"),
        ("profile shwo x", 2, "no such command 'shwo'. Did you mean 'show'?", "`kd profile --help`"),
        ("run-all --learning_rate 1", 2, "no such option: --learning_rate", "it is a setting of one stage: --set"),
        ("student --learning_rate 1", 2, "no such option: --learning_rate", "did you mean --lr?"),
        ("run-all --workspace x", 2, "no such option: --workspace\n", "did you mean --run-dir?"),
        ("run-all --dry_run", 2, "no such option: --dry_run\n", "did you mean --dry-run?"),
        ("profile show", 2, "missing argument 'NAME|FILE'", "`kd profile show --help`"),
        ("profile check base -s", 2, "option '-s' requires an argument", "`kd"),
        ("profile check bsae", 3, "no profile is named bsae", "did you mean base?"),
        ("profile check base -s student.lrr=1", 3, "--set: unknown key (key student.lrr)", "did you mean student.lr?"),
        ("plugins show bilsmt", 5, "no plugin is named bilsmt", "did you mean bilstm?"),
    ],
)
def test_an_error_is_two_lines_and_with_json_one_object(line, code, says, hint, kd):
    found, out, err = kd(*line.split())
    assert (found, out) == (code, "")
    first, second = err.splitlines()
    assert f"{first}\n".startswith(f"error: {says}")
    assert second.startswith(f"hint: {hint}")
    _, out, _ = kd(*line.split(), "--json") if not line.endswith("-s") else kd("--json", *line.split())
    error = json.loads(out)["error"]
    assert error["exit_code"] == code and error["what"] in first and error["hint"] == second.removeprefix("hint: ")


@pytest.fixture
def failing(monkeypatch):
    """Make ``kd profile list`` raise what the test wants."""

    def fail_with(error):
        def names():
            raise error

        monkeypatch.setattr("kdcli.config.files.names", names)

    return fail_with


def test_an_error_names_file_row_and_key_and_an_unexpected_one_has_a_traceback_with_debug_alone(failing, kd):
    failing(DataError("bad\n  row", file="a.tsv", row=3, key="label", hint="fix\nit"))
    code, out, err = kd("profile", "list", "--json")
    assert (code, err) == (4, "error: bad row (file a.tsv, row 3, key label)\nhint: fix it\n")
    error = json.loads(out)["error"]
    assert (error["type"], error["file"], error["row"], error["key"]) == ("DataError", "a.tsv", 3, "label")
    failing(ZeroDivisionError("by zero"))
    code, _, err = kd("profile", "list")
    assert code == 1 and err.startswith("error: unexpected ZeroDivisionError: by zero\nhint: ")
    assert "Traceback" not in err
    code, out, err = kd("profile", "list", "--debug", "--json")
    assert "Traceback (most recent call last)" in err and "raise error" in err
    assert json.loads(out)["error"]["what"] == "unexpected ZeroDivisionError: by zero"
    failing(SystemExit(0))
    kd.says(1, "error: unexpected SystemExit: 0\nhint: ", "profile", "list")


def test_paths_that_cannot_be_are_errors_of_data(kd):
    Path("file").touch()
    long = "x" * 300
    for line in (
        *("run-all --run-dir file/run", f"run-all --run-dir {long}", f"transfer lite --output {long}.tsv"),
        *("transfer lite --output file/o.tsv", "profile copy sst2 file/x.toml", f"profile copy sst2 {long}.toml"),
        *(f"profile check {long}.toml", f"data check --data-dir {long} -p sst2", f"predict --student {long} -i file"),
        *("plugins new student cnn --output file/x", f"report {long}", f"export onnx --student file --output {long}"),
        *(f"eval --student {long}", f"bench --student {long}", "run-all -p sst2 --data-dir file", "report file"),
        *("data get sst2 -o file/x --offline", f"student --input {long}.parquet", f"join --run-dir {long}"),
    ):
        code, out, _ = kd(*line.split(), "--json")
        error = json.loads(out)["error"]
        assert 2 <= code <= 6 and "unexpected" not in error["what"] and error["hint"], line


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_interruption_is_130(error, failing, kd):
    failing(error)
    code, out, err = kd("profile", "list", "--json")
    assert (code, err) == (130, "error: interrupted\nhint: run the same command again to continue from here\n")
    assert json.loads(out)["error"]["exit_code"] == 130


def test_nobody_reading_on_is_no_error():
    for arguments in (["profile", "show", "base", "--resolved"], ["--help"], ["profile", "list", "--json"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run([*KD, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, ""), arguments


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kd profile sh", ["show"]),
        ("kd profile show d", ["demo", "distil"]),
        ("kd plugins show pat", ["pattern"]),
        ("kd profile check base --se", ["--set"]),
    ],
)
def test_completion(line, expected):
    words_ = line.split()
    environ = {**os.environ, "_KD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words_) - 1)}
    done = subprocess.run(KD, capture_output=True, text=True, timeout=60, env=environ)
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("command", ["run-all", "student", "teacher train", "transfer heavy"])
def test_a_wrong_or_missing_tracker_is_an_error_before_any_work(command, tmp_path, kd, monkeypatch):
    line = [*command.split(), "--profile", "sst2", "--run-dir", tmp_path / "run", "--track"]
    kd.says(2, "(key track)\nhint: the trackers are tensorboard, wandb", *line, "tensorbord")
    monkeypatch.setattr("kdcli.run.tracking.find_spec", lambda name: None)
    kd.says(6, "hint: pip install 'kdcli[track]'\n", *line, "tensorboard")
    assert not (tmp_path / "run").exists()


def test_python_warnings_are_one_line_each(monkeypatch, kd):
    import warnings

    def names():
        warnings.warn("two\nlines", stacklevel=1)
        return []

    monkeypatch.setattr("kdcli.config.files.names", names)
    code, out, err = kd("profile", "list", "--json")
    assert (code, json.loads(out), err) == (0, {"profiles": []}, "warning: two lines\n")


def test_flags_reach_the_ui(kd):
    kd("profile", "list", "-q", "--debug", "--no-color", "--no-progress")
    assert ui.output == ui.Output(quiet=True, debug=True, no_color=True, no_progress=True)
    kd("profile", "list")
    assert ui.output == ui.Output()
