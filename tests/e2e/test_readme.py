"""Every command of the README and of the pages for users runs, or with --dry-run at least would."""

import re
import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest
from e2e.conftest import THINGS
from made_teacher import make_teacher
from typer.main import get_command

from kdcli.cli import all_commands, app
from kdcli.student.deferral import Calibration, Familiar

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = ("api.md", "cli.md", "plugins.md")
"""Two pages are generated; test_plugins_doc.py reads the third."""
DOCUMENTS = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in WRITTEN)]
D_BERT = """augment_data augment_paired_data cache_datasets pair-sentence finetune_transfoxl finetune_gpt build_sampler
model-type sample_transfoxl --paired sst2-ft.json sst_export.json join_logits distill_birnn"""
"""What stands in the commands of d-bert's README."""
INDENTED, INLINE = r"^    (kd .+?)(?:\s+#.*)?$", r"`(kd [a-z][^`]+)`"
COMMANDS = {" ".join(path): command for path, command in all_commands(get_command(app))}


def commands(pattern):
    texts = [document.read_text("utf-8").replace("\\\n", " ") for document in DOCUMENTS]
    return {line for text in texts for line in re.findall(pattern, text, re.MULTILINE)}


def split(line):
    """Return the longest command that a line begins with, and its words."""
    words = shlex.split(line)[1:]
    name = next(" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in COMMANDS)
    return name, words


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
        rows = [f"{text}\t{text}\t{label}\n" for text, label in tiny.rows(name)]
        Path(f"mine/{name}.tsv").write_text("review\treply\tstars\n" + "".join(rows))
    assert tiny.kd("profile", "copy", "sst2", "my.toml").code == 0
    texts = [text for text, _ in tiny.rows("train")]
    pl.DataFrame({"review": texts}).write_csv("reviews.csv")
    pl.DataFrame({"sentence": texts}).write_csv("new.csv")
    shutil.copy("reviews.csv", "texts.csv")
    shutil.copy("reviews.txt", "texts.txt")
    (block,) = re.findall(
        r"```toml\n(.*?)```", (ROOT / "docs/teachers.md").read_text("utf-8").partition("server\n")[2], re.S
    )
    Path("mine.toml").write_text(f'extends = "sst2"\n{block}')
    for student in Path("runs").glob("*/student") if line.startswith("kd predict") else ():
        Calibration(100, 0.95, Familiar(1.0, 1_000), [], [0.01], [1.0]).save(student / "calibration.json")
    pl.DataFrame({"mail": texts}).write_ndjson("mails.jsonl")
    monkeypatch.setattr("kdcli.export.web._library_files", lambda *_: {})  # npm would need the network
    monkeypatch.setattr("kdcli.serve.app.serve", lambda app, **_: None)  # it would go on
    if line.startswith("kd serve"):
        Path("sst2-web").mkdir()
        Path("sst2-web/index.html").touch()
    return tiny


def test_each_command_of_d_berts_readme_has_its_row():
    page = (ROOT / "docs" / "from-d-bert.md").read_text("utf-8")
    table = page.partition("## Commands")[2].partition("## Files")[0]
    rows = [row.split("|") for row in table.splitlines() if row.startswith("|")]
    assert [name for name in D_BERT.split() if not any(name in row[1] and "`kd " in row[2] for row in rows)] == []


def test_the_readme_is_short_and_names_every_page():
    readme = DOCUMENTS[0].read_text("utf-8")
    assert len(readme.splitlines()) <= 150
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in readme] == []
    assert any(line.startswith("kd run-all") for line in commands(INDENTED)) and len(LINES) > 30


@pytest.mark.parametrize("line", sorted(LINES))
def test_a_command_of_a_page(line, here, nli):
    runs = here.root / "runs"
    models = ("MODEL", runs / "sst2/teacher"), ("OTHER", runs / "custom/teacher"), ("facebook/bart-large-mnli", nli)
    for old, new in (("DATA/MINE", here.root / "mine"), (r"DATA\b(/\S+)?", here.data), *models):
        line = re.sub(old, str(new), line)
    name, words = split(re.sub(r"\b(FOLDER|ENCODER|golden)\b", str(here.root / "runs/sst2/teacher"), line))
    if name == "profile copy":
        Path("my.toml").unlink()
    if name == "distil":
        shutil.rmtree("runs/reviews", ignore_errors=True)  # the fixture's is of run-all
    if name == "data get":  # it would need the network
        assert here.kd(*words, "--offline").code == 6
        return
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    more = ["--dry-run"] if "--dry-run" in options else ["--seconds", "0.05"] if name == "bench" else []
    ended = here.kd(*words, *(word for word in more if word not in words))
    assert ended.code == 0, ended.err
