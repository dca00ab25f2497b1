"""The page for plugin authors, from top to bottom: each block is saved, checked or run, and so is each command.

A command that names no profile gets one of a tiny task; pip is stood in for, since ``test_wheels.py`` runs it."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import polars as pl
import pytest
from commands import all_commands
from e2e.conftest import THINGS, succeeded
from made_teacher import make_teacher
from typer.main import get_command

from kdcli import serve as service
from kdcli.cli import app
from kdcli.student.deferral import Calibration, Familiar

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text("utf-8")
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


def command_of(words):
    """Return the longest command that a line begins with, and its options."""
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS)
    return name, {option for parameter in COMMANDS[name].params for option in parameter.opts}


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
        _, options = command_of(words)
        return ["--profile", self.tiny.profile] if "--profile" in options and "--profile" not in words else []

    def install(self, folder):
        project = tomllib.loads((self.tiny.root / folder / "pyproject.toml").read_text())["project"]
        info = self.tiny.root / folder / f"{project['name'].replace('-', '_')}-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
        lines = []
        for group, one in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{name} = {place}" for name, place in one.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
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


WRITTEN = ("api.md", "cli.md", "plugins.md")
"""Two pages are generated; test_plugins_doc.py reads the third."""
DOCUMENTS = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in WRITTEN)]
D_BERT = """augment_data augment_paired_data cache_datasets pair-sentence finetune_transfoxl finetune_gpt build_sampler
model-type sample_transfoxl --paired sst2-ft.json sst_export.json join_logits distill_birnn"""
"""What stands in the commands of d-bert's README."""
INDENTED, INLINE = r"^    (kd .+?)(?:\s+#.*)?$", r"`(kd [a-z][^`]+)`"


def commands(pattern):
    texts = [document.read_text("utf-8").replace("\\\n", " ") for document in DOCUMENTS]
    return {line for text in texts for line in re.findall(pattern, text, re.MULTILINE)}


LINES = commands(INDENTED) | {line for line in commands(INLINE) if line.removeprefix("kd ") not in COMMANDS}


@pytest.fixture(scope="module")
def nli(tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("nli"), labels=("contradiction", "neutral", "entailment"))


@pytest.fixture
def here(line, trained, tiny, dbert, monkeypatch):
    """The current folder holds what the pages speak of: runs, texts, a table in columns of its own."""
    monkeypatch.chdir(tiny.root)
    for name in ("sst2", "custom", "reviews"):
        if name != "reviews" or "runs/reviews" in line:
            shutil.copytree(trained / "run", f"runs/{name}")
    shutil.copy(tiny.data / "test.tsv", "test.tsv")
    Path("reviews.txt").write_text("".join(f"a review of the {thing} .\n" for thing in THINGS))
    Path("mine").mkdir()
    for name in ("train", "dev"):
        rows = [
            f"{text}\t{text}\t{1 + 4 * int(label)}\t{('food', 'room')[int(label)]}\n" for text, label in tiny.rows(name)
        ]
        Path(f"mine/{name}.tsv").write_text("review\treply\tstars\ttopic\n" + "".join(rows))
    assert tiny.kd("profile", "copy", "sst2", "my.toml").code == 0
    texts = [text for text, _ in tiny.rows("train")]
    pl.DataFrame({"review": texts}).write_csv("reviews.csv")
    pl.DataFrame({"sentence": texts}).write_csv("new.csv")
    shutil.copy("reviews.csv", "texts.csv")
    shutil.copy("reviews.txt", "texts.txt")
    about_servers = (ROOT / "docs/teachers.md").read_text("utf-8").partition("server\n")[2]
    (block,) = re.findall(r"```toml\n(.*?)```", about_servers, re.S)
    Path("mine.toml").write_text(f'extends = "sst2"\n{block}')
    for student in Path("runs").glob("*/student") if line.startswith("kd predict") else ():
        Calibration(100, 0.95, Familiar(1.0, 1_000), [], [0.01], [1.0]).save(student / "calibration.json")
    pl.DataFrame({"mail": texts}).write_ndjson("mails.jsonl")
    monkeypatch.setattr("kdcli.export.web._library_files", lambda *_: {})  # npm would need the network
    monkeypatch.setattr(service, "serve", lambda app, **_: None)  # it would go on
    if line.startswith("kd serve"):
        Path("sst2-web").mkdir()
        Path("sst2-web/index.html").touch()
    return tiny


def test_the_readme_is_short_and_names_every_page_and_d_berts_commands_have_their_rows():
    readme = DOCUMENTS[0].read_text("utf-8")
    assert len(readme.splitlines()) <= 150
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in readme] == []
    assert any(line.startswith("kd run-all") for line in commands(INDENTED)) and len(LINES) > 30
    page = (ROOT / "docs" / "from-d-bert.md").read_text("utf-8")
    table = page.partition("## Commands")[2].partition("## Files")[0]
    rows = [row.split("|") for row in table.splitlines() if row.startswith("|")]
    assert [name for name in D_BERT.split() if not any(name in row[1] and "`kd " in row[2] for row in rows)] == []


@pytest.mark.parametrize("line", sorted(LINES))
def test_a_command_of_a_page(line, here, nli):
    runs = here.root / "runs"
    models = ("MODEL", runs / "sst2/teacher"), ("OTHER", runs / "custom/teacher"), ("facebook/bart-large-mnli", nli)
    for old, new in (("DATA/MINE", here.root / "mine"), (r"DATA\b(/\S+)?", here.data), *models):
        line = re.sub(old, str(new), line)
    _, *words = shlex.split(re.sub(r"\b(FOLDER|ENCODER|golden)\b", str(here.root / "runs/sst2/teacher"), line))
    name, options = command_of(words)
    if name == "profile copy":
        Path("my.toml").unlink()
    if name == "distil":
        shutil.rmtree("runs/reviews", ignore_errors=True)  # the fixture's is of run-all
    if name == "data get":  # it would need the network
        assert here.kd(*words, "--offline").code == 6
        return
    more = ["--dry-run"] if "--dry-run" in options else ["--seconds", "0.05"] if name == "bench" else []
    succeeded(here.kd(*words, *(word for word in more if word not in words)))
