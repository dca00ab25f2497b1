"""The page for plugin authors, from top to bottom: each block is saved, checked or run, and so is each command.

A command that names no profile gets one of a tiny task; pip is stood in for, since ``test_wheels.py`` runs it.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from kdcli.cli import all_commands, app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plugins.md").read_text("utf-8")
PIECE = re.compile(r"^```(\w+)\n((?s:.*?))^```$|^    (\S.*)$|`(kd [^`]+)`", re.MULTILINE)
FOR_EXAMPLE = {
    "new student NAME": "new student mlp",
    "new tagger NAME": "new tagger suffix",
    "new teacher NAME": "new teacher lexicon",
    "check NAME": "check bigram",
}
COMMANDS = {" ".join(path): command for path, command in all_commands(get_command(app))}
ELSEWHERE = ("python -m build", "python -m twine")
"""What publishes; nothing here may."""


class Reader:
    def __init__(self, tiny, monkeypatch):
        self.tiny, self.monkeypatch = tiny, monkeypatch
        self.done = []
        self.failed = {}

    def block(self, language, code):
        if language == "python":
            name = re.match(r"# (\w+\.py)\n", code)[1]
            (self.tiny.root / name).write_text(code)
        elif "project" in (table := tomllib.loads(code)):
            written = tomllib.loads((self.tiny.root / "kd-bigram" / "pyproject.toml").read_text())
            assert written["project"]["entry-points"] == table["project"]["entry-points"]
        else:
            Path("mine.toml").write_text(f'extends = "{self.tiny.profile}"\n{code}')
            self.kd("profile", "check", "mine.toml", "--code", f"{table['student']['model']}.py")

    def command(self, line):
        program, *words = shlex.split(line)
        if line.startswith("pip install -e "):
            self.install(words[-1])
        elif program == "kd":
            self.kd(*words, *self.profile(words))
        else:
            assert line.startswith(ELSEWHERE), line

    def inline(self, line):
        """Run a command, unless the page only names it."""
        for placeholder, example in FOR_EXAMPLE.items():
            line = line.replace(placeholder, example)
        if line.removeprefix("kd ") not in COMMANDS:
            self.command(line)

    def kd(self, *words):
        self.monkeypatch.setenv("KD_CODE", "")  # --code of the command before
        ended = self.tiny.kd(*words)
        line = " ".join(map(str, words))
        self.done.append(line)
        if ended.code != 0:
            self.failed[line] = ended.out + ended.err

    def profile(self, words):
        command = next(COMMANDS[name] for name in (" ".join(words[:2]), words[0]) if name in COMMANDS)
        names = {name for option in command.params for name in option.opts}
        return ["--profile", self.tiny.profile] if "--profile" in names and "--profile" not in words else []

    def install(self, folder):
        project = tomllib.loads((self.tiny.root / folder / "pyproject.toml").read_text())["project"]
        info = self.tiny.root / folder / f"{project['name'].replace('-', '_')}-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
        groups = project["entry-points"].items()
        lines = [
            f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in one.items()) for group, one in groups
        ]
        (info / "entry_points.txt").write_text("".join(lines))
        self.monkeypatch.syspath_prepend(str(self.tiny.root / folder))


@pytest.fixture
def reader(tiny, monkeypatch):
    monkeypatch.chdir(tiny.root)
    return Reader(tiny, monkeypatch)


def test_the_page_from_top_to_bottom(reader):
    for language, code, line, inline in PIECE.findall(PAGE):
        if language:
            reader.block(language, code)
        elif line:
            reader.command(line)
        else:
            reader.inline(inline)
    assert reader.failed == {}
    assert sum(line.startswith("run-all") for line in reader.done) >= 3
    assert sum(line.startswith("plugins check") for line in reader.done) >= 2
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_splice.py"]
    done = subprocess.run(test, cwd=reader.tiny.root, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout
