"""Every command of the README runs, or at least would."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from kdcli.cli import app

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
COMMANDS = sorted(
    set(re.findall(r"^    (kd .+?)(?:\s+#.*)?$", README, re.MULTILINE) + re.findall(r"`(kd [^`]+)`", README))
)


def takes_dry_run(words):
    command = get_command(app)
    for word in words:
        inner = getattr(command, "commands", {})
        if word not in inner:
            break
        command = inner[word]
    return any("--dry-run" in option.opts for option in command.params)


def test_the_readme_has_commands():
    assert "kd run-all" in COMMANDS and len(COMMANDS) > 8


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme(line, tiny, monkeypatch):
    monkeypatch.chdir(tiny.root)
    if "predict" in line:
        assert tiny.kd("run-all", "-p", tiny.profile, "--run-dir", "runs/sst2", "--until", "student").code == 0
        tiny.data.joinpath("test.tsv").rename("test.tsv")
    if "my.toml" in line and "copy" not in line:
        assert tiny.kd("profile", "copy", "sst2", "my.toml").code == 0
    words = shlex.split(line.replace("DATA/SST-2", str(tiny.data)))[1:]
    ended = tiny.kd(*words, *(["--dry-run"] if takes_dry_run(words) else []))
    assert ended.code == 0, ended.err
