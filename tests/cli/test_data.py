import io
import json
import shlex
import zipfile

import numpy as np
import polars as pl
import pytest

from kdcli.cli import run
from kdcli.download.get import SOURCES
from kdcli.files import MARKER
from kdcli.student.vectors import read_vectors

WORDS = [f"word{row}" for row in range(30)]
VECTORS = "".join(f"{word} {row} {row}.5 -{row}\n" for row, word in enumerate(WORDS)).encode()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def served(monkeypatch):
    """What a server gives, by address, and what it is asked for."""
    contents, asked = {}, []

    def fetch(url, output, **how):
        asked.append(url)
        output.parent.mkdir(exist_ok=True)
        output.write_bytes(contents[url])

    monkeypatch.setattr("kdcli.download.fetch.fetch", fetch)
    return contents, asked


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def got(capsys):
    def get(*arguments):
        code = run(["data", "get", *map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        result = json.loads(out)
        assert code == 0, err
        return result

    return get


@pytest.fixture
def failed(capsys):
    def get(code, *arguments):
        assert run(["data", "get", *map(str, arguments), "--json"]) == code
        return json.loads(capsys.readouterr().out)["error"]

    return get


@pytest.fixture
def rte(tmp_path):
    folder = tmp_path / "hub"
    (folder / "rte").mkdir(parents=True)
    for split, labels in (("train", [0, 1]), ("validation", [1, 0]), ("test", [-1, -1])):
        texts = {"sentence1": ["one", "two"], "sentence2": ["three", "four"]}
        table = pl.DataFrame({**texts, "label": labels, "idx": pl.Series([0, 1], dtype=pl.Int32)})
        table.write_parquet(folder / "rte" / f"{split}-00000-of-00001.parquet")
    return folder


def test_list_names_all_there_is(capsys, rte, got, here):
    assert run(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["sources"]
    assert [source["name"] for source in listed] == [source.name for source in SOURCES]
    assert not any(source["here"] for source in listed)
    (glove,) = (source for source in listed if source["name"] == "glove.6B.300d")
    assert (glove["kind"], glove["size"]) == ("vectors", 862_182_613) and glove["address"].endswith("/glove.6B.zip")
    got("rte", "--url", rte)
    assert run(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("rte"))
    assert "data/rte" in line and "nyu-mll/glue" in line and "2,490, 277, 3,000" in line
    assert sum("data/" in line for line in lines) == 1
    (line,) = (line for line in lines if line.startswith("glove.840B.300d"))
    assert line.endswith("2.18 GB") and "nlp.stanford.edu" in line
    got("rte", "--url", rte)
    (here / "data/rte/validation-00000-of-00001.parquet").unlink()
    run(["data", "list"])
    assert "data/rte" not in capsys.readouterr().out


def test_a_task_of_a_folder(rte, got, here):
    result = got("rte", "--url", rte)
    assert (result["kind"], result["folder"], result["address"], result["done"]) == ("task", "data/rte", str(rte), True)
    found = {file["path"].partition("-")[0]: file["rows"] for file in result["files"]}
    assert found == {"train": 2, "validation": 2, "test": 2}
    assert all((here / "data/rte" / file["path"]).is_file() for file in result["files"])
    assert result["next"] == ["kd run-all --profile rte --data-dir data/rte"]
    (command,) = got("rte", "--url", rte, "-o", "my data/rte")["next"]
    assert run([*shlex.split(command)[1:], "--dry-run"]) == 0


def test_what_is_here_from_elsewhere_or_is_not_ours_is_not_overwritten(rte, got, failed, here):
    got("rte", "--url", rte)
    other = rte.parent / "other"
    rte.rename(other)
    error = failed(4, "rte", "--url", other)
    assert error["file"] == "data/rte" and "--force" in error["hint"]
    assert got("rte", "--url", other, "--force")["done"] is True
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").touch()
    for arguments in ([], ["--force"]):
        error = failed(4, "rte", "--url", other, "-o", "mine", *arguments)
        assert error["hint"] == "name another folder with --output"
    assert (here / "mine" / "thesis.txt").exists()
    assert failed(4, "rte", "--url", other, "-o", ".")["what"] == "the output exists already"


def test_vectors_are_a_file_that_the_student_reads(served, got, here):
    (contents, asked), url = served, "https://host/mirror/glove.6B.zip?download=1"
    contents[url] = zipped(**{"glove.6B.50d.txt": b"x", "glove.6B.300d.txt": VECTORS})
    result = got("glove.6B.300d", "--url", url)
    (file,) = result["files"]
    assert file["path"] == "glove.6B.300d.txt"
    path = here / "data/glove.6B.300d/glove.6B.300d.txt"
    found = read_vectors(path, ["word7", "nothing", "word29"])
    assert found.found.tolist() == [True, False, True]
    np.testing.assert_array_equal(found.matrix, [[7, 7.5, -7], [0, 0, 0], [29, 29.5, -29]])
    assert sorted(item.name for item in (here / "data").iterdir()) == ["glove.6B.300d"], "the archive is gone"
    assert sorted(item.name for item in path.parent.iterdir()) == [MARKER, "glove.6B.300d.txt", "source.json"]
    (command,) = result["next"]
    assert command.endswith("--set student.vectors=data/glove.6B.300d/glove.6B.300d.txt")
    assert got("glove.6B.300d", "--url", url)["done"] is False
    assert asked == [url]


def test_the_archive_is_kept_for_other_sources(served, got, here, monkeypatch, capsys):
    (contents, asked), source = served, next(one for one in SOURCES if one.name == "glove.6B.100d")
    address = source.address
    contents[address] = zipped(**{"glove.6B.50d.txt": VECTORS, "glove.6B.100d.txt": VECTORS})
    monkeypatch.setattr("kdcli.download.get.sha256", lambda path: source.sha256)
    assert run(["data", "get", "glove.6B.50d"]) == 0
    err = capsys.readouterr().err
    assert "data/glove.6B.zip is kept for glove.6B.100d" in err
    assert run(["data", "get", "glove.6B.100d"]) == 0
    assert "data/glove.6B.zip is here: nothing is downloaded" in capsys.readouterr().err
    assert asked == [address]


def test_transfer_sets(served, got, here):
    files = {"sets/SST-2/train.tsv": b"label\tsentence\n1\ta film\n", "sets/sst2-gpt2.txt": b"a generated text\n"}
    served[0]["https://host/sets.zip"] = zipped(**files)
    result = got("distillation-data", "--url", "https://host/sets.zip")
    assert [file["path"] for file in result["files"]] == [f"texts/{name}" for name in files]
    assert (here / "data/distillation-data/texts/sets/sst2-gpt2.txt").read_bytes() == b"a generated text\n"
    assert result["next"] == ["kd transfer corpus --profile sst2 --data-dir data/sst2 --input FILE"]


def test_offline_names_the_file_and_its_place_and_a_task_is_no_single_file(failed, got, here, capsys):
    error = failed(6, "distillation-data", "--offline")
    assert error["file"] == "https://nlp.nyc3.digitaloceanspaces.com/distillation-data.zip"
    assert "put it at data/distillation-data.zip" in error["hint"]
    assert failed(6, "distillation-data", "--url", "nowhere.zip")["what"].startswith("the file does not exist")
    (here / "data").mkdir()
    (here / "data/distillation-data.zip").write_bytes(zipped(**{"a.txt": b"one\n"}))
    assert got("distillation-data", "--offline")["files"][0]["path"] == "texts/a.txt"
    assert "one file" in failed(2, "rte", "--url", "https://host/rte.zip")["what"]


@pytest.fixture
def folder(tmp_path):
    """Tables of SST-2's layout: a repeated text with two labels, one with an odd character, one that is in dev."""
    train = ["good\t1", "bad\t0", "good\t0", "no\u00a0break \t1", *(f"text {n}\t{n % 2}" for n in range(9))]
    for split, rows in (("train", train), ("dev", ["text 3\t1", "TEXT 4\t0", "other\t1"])):
        (tmp_path / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows, ""]), "utf-8")
    return tmp_path


def result(capsys, *arguments, code=0):
    assert run(["data", "check", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_json_is_one_object_of_a_folder_with_a_profile_or_of_the_sample(capsys, folder):
    report = result(capsys, "--profile", "sst2", "--data-dir", str(folder))
    assert report["fit"] is True
    train, dev = report["tables"]
    assert (train["name"], train["rows"], dev["rows"]) == ("train", 13, 3)
    assert train["labels"]["known"][1] == {"label": "1", "name": "positive", "count": 6, "share": 6 / 13}
    found = {name: report["overlaps"][0][name] for name in ("rows", "alike", "example")}
    assert found == {"rows": 1, "alike": 2, "example": [9, 2]}
    assert result(capsys)["task"] == "demo"
    assert run(["data", "check", "--data-dir", str(folder)]) == 2


def test_a_profile_that_cannot_run_exits_with_4_and_all_reasons(capsys, folder):
    (folder / "dev.tsv").write_text("sentence\tlabel\ngood\t1\nbad\tx\nragged\n")
    report = result(capsys, "--profile", "sst2", "--data-dir", str(folder), code=4)
    assert report["fit"] is False
    errors = [problem for problem in report["problems"] if problem["level"] == "error"]
    assert [(error["what"].partition(":")[0], error["row"]) for error in errors] == [
        ("1 row cannot be read, the first is row 4", None),
        ("1 row with labels that are none of the task's 0, 1", 3),
    ]
    assert run(["data", "check", "--profile", "sst2", "--data-dir", str(folder)]) == 4
    printed = capsys.readouterr().out
    assert 'hint: if they are classes: task.labels = ["0", "1", "x"] and task.names = []' in printed
    assert "the profile cannot run on these tables: 2 errors" in printed


def test_columns_and_settings_of_ones_own(capsys, folder):
    (folder / "train.tsv").write_text("essay\tstars\na b c\t1\nd\t2\n")
    (folder / "dev.tsv").write_text("essay\tstars\na\t1\n")
    assert run(["data", "check", "--profile", "custom", "--data-dir", str(folder)]) == 4
    assert "--text-col" in capsys.readouterr().out
    flags = ["--text-col", "essay", "--label-col", "stars", "--set", 'task.labels=["1","2"]']
    more = ["--set", "student.max_length=2"]
    report = result(capsys, "--profile", "custom", "--data-dir", str(folder), *flags, *more)
    assert report["max_words"] == 2
    assert report["tables"][0]["words"]["essay"]["longer"] == 1
