"""Every command of the README and of the page for users of d-bert runs, or at least would."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.main import get_command

from kdcli.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "docs" / "from-d-bert.md"]
INDENTED, INLINE = r"^    (kd .+?)(?:\s+#.*)?$", r"`(kd [^`]+)`"


def commands(document):
    text = document.read_text("utf-8")
    return sorted({*re.findall(INDENTED, text, re.MULTILINE), *re.findall(INLINE, text)})


def takes_dry_run(words):
    command = get_command(app)
    for word in words:
        inner = getattr(command, "commands", {})
        if word not in inner:
            break
        command = inner[word]
    return any("--dry-run" in option.opts for option in command.params)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_has_commands(document):
    assert any(line.startswith("kd run-all") for line in commands(document)) and len(commands(document)) > 8


@pytest.mark.parametrize("line", sorted({line for document in DOCUMENTS for line in commands(document)}))
def test_a_command_of_a_document(line, trained, tiny, dbert, monkeypatch):
    monkeypatch.chdir(tiny.root)
    if " runs/sst2" in line:
        shutil.copytree(trained / "run", "runs/sst2")
        shutil.copy(tiny.data / "test.tsv", "test.tsv")
    if "my.toml" in line and "copy" not in line:
        assert tiny.kd("profile", "copy", "sst2", "my.toml").code == 0
    if imported := re.search(r"(\S+)\.toml", line.replace("my.toml", "")):
        assert tiny.kd("profile", "import-dbert", f"confs/{imported[1]}.json").code == 0
    words = shlex.split(re.sub(r"DATA/\S+", str(tiny.data), line))[1:]
    if words[:2] == ["data", "get"]:  # would need the network: it gets as far as that
        assert tiny.kd(*words, "--offline").code == 6
        return
    more = ["--dry-run"] if takes_dry_run(words) else ["--seconds", "0.05"] if words[0] == "bench" else []
    ended = tiny.kd(*words, *more)
    assert ended.code == 0, ended.err
