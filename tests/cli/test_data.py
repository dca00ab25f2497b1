import io
import shlex
import zipfile

import numpy as np
import pytest
from glue_tables import write_hub

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
def rte(tmp_path):
    return write_hub(tmp_path / "hub", "rte", [0, 1])


def test_list_names_all_there_is(kd, rte, here):
    listed = kd.ok("data", "list", "--json")["sources"]
    assert [source["name"] for source in listed] == [source.name for source in SOURCES]
    assert not any(source["here"] for source in listed)
    (glove,) = (source for source in listed if source["name"] == "glove.6B.300d")
    assert (glove["kind"], glove["size"]) == ("vectors", 862_182_613) and glove["address"].endswith("/glove.6B.zip")
    kd.ok("data", "get", "rte", "--url", rte)
    lines = {line.partition(" ")[0]: line for line in kd.ok("data", "list").splitlines()}
    assert [said for said in ("data/rte", "nyu-mll/glue", "2,490, 277, 3,000") if said not in lines["rte"]] == []
    assert sum("data/" in line for line in lines.values()) == 1
    assert lines["glove.840B.300d"].endswith("2.18 GB") and "nlp.stanford.edu" in lines["glove.840B.300d"]
    (here / "data/rte/validation-00000-of-00001.parquet").unlink()
    assert "data/rte" not in kd.ok("data", "list")


def test_a_task_of_a_folder(kd, rte, here):
    result = kd.ok("data", "get", "rte", "--url", rte, "--json")
    assert (result["kind"], result["folder"], result["address"], result["done"]) == ("task", "data/rte", str(rte), True)
    assert len([file for file in result["files"] if (here / "data/rte" / file["path"]).is_file()]) == 3
    assert result["next"] == ["kd run-all --profile rte --data-dir data/rte"]
    (command,) = kd.ok("data", "get", "rte", "--url", rte, "-o", "my data/rte", "--json")["next"]
    kd.ok(*shlex.split(command)[1:], "--dry-run")


def test_what_is_here_from_elsewhere_or_is_not_ours_is_not_overwritten(kd, rte, here):
    kd.ok("data", "get", "rte", "--url", rte)
    other = rte.rename(rte.parent / "other")
    get = ("data", "get", "rte", "--url", other)
    error = kd.failed(4, *get)["error"]
    assert error["file"] == "data/rte" and "--force" in error["hint"]
    assert kd.ok(*get, "--force", "--json")["done"] is True
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").touch()
    for arguments in ([], ["--force"]):
        error = kd.failed(4, *get, "-o", "mine", *arguments)["error"]
        assert error["hint"] == "name another folder with --output"
    assert (here / "mine" / "thesis.txt").exists()
    assert kd.failed(4, *get, "-o", ".")["error"]["what"] == "the output exists already"


def test_vectors_are_a_file_that_the_student_reads(kd, served, here):
    (contents, asked), url = served, "https://host/mirror/glove.6B.zip?download=1"
    contents[url] = zipped(**{"glove.6B.50d.txt": b"x", "glove.6B.300d.txt": VECTORS})
    get = ("data", "get", "glove.6B.300d", "--url", url, "--json")
    result = kd.ok(*get)
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
    assert kd.ok(*get)["done"] is False
    assert asked == [url]


def test_the_archive_is_kept_for_other_sources(kd, served, monkeypatch):
    (contents, asked), source = served, next(one for one in SOURCES if one.name == "glove.6B.100d")
    address = source.address
    contents[address] = zipped(**{"glove.6B.50d.txt": VECTORS, "glove.6B.100d.txt": VECTORS})
    monkeypatch.setattr("kdcli.download.get.sha256", lambda path: source.sha256)
    kd.says(0, "data/glove.6B.zip is kept for glove.6B.100d", "data", "get", "glove.6B.50d")
    kd.says(0, "data/glove.6B.zip is here: nothing is downloaded", "data", "get", "glove.6B.100d")
    assert asked == [address]


def test_transfer_sets(kd, served, here):
    files = {"sets/SST-2/train.tsv": b"label\tsentence\n1\ta film\n", "sets/sst2-gpt2.txt": b"a generated text\n"}
    served[0]["https://host/sets.zip"] = zipped(**files)
    result = kd.ok("data", "get", "distillation-data", "--url", "https://host/sets.zip", "--json")
    assert [file["path"] for file in result["files"]] == [f"texts/{name}" for name in files]
    assert (here / "data/distillation-data/texts/sets/sst2-gpt2.txt").read_bytes() == b"a generated text\n"
    assert result["next"] == ["kd transfer corpus --profile sst2 --data-dir data/sst2 --input FILE"]


def test_offline_names_the_file_and_its_place_and_a_task_is_no_single_file(kd, here):
    get = ("data", "get", "distillation-data")
    error = kd.failed(6, *get, "--offline")["error"]
    assert error["file"] == "https://nlp.nyc3.digitaloceanspaces.com/distillation-data.zip"
    assert "put it at data/distillation-data.zip" in error["hint"]
    assert "does not exist" in kd.failed(6, *get, "--url", "nowhere.zip")["error"]["what"]
    (here / "data").mkdir()
    (here / "data/distillation-data.zip").write_bytes(zipped(**{"a.txt": b"one\n"}))
    assert kd.ok(*get, "--offline", "--json")["files"][0]["path"] == "texts/a.txt"
    assert "one file" in kd.failed(2, "data", "get", "rte", "--url", "https://host/rte.zip")["error"]["what"]


@pytest.fixture
def folder(tmp_path):
    """Tables of SST-2's layout."""
    for split, count in (("train", 13), ("dev", 3)):
        rows = [f"text {number}\t{number % 2}\n" for number in range(count)]
        (tmp_path / f"{split}.tsv").write_text("".join(["sentence\tlabel\n", *rows]))
    return tmp_path


def test_json_is_one_object_of_a_folder_with_a_profile_or_of_the_sample(kd, folder):
    where = ("data", "check", "--profile", "sst2", "--data-dir", folder)
    report = kd.ok(*where, "--set", "student.max_length=2", "--json")
    assert report["fit"] is True and report["max_words"] == 2
    train, dev = report["tables"]
    assert (train["name"], train["rows"], dev["rows"]) == ("train", 13, 3)
    assert train["labels"]["known"][1] == {"label": "1", "name": "positive", "count": 6, "share": 6 / 13}
    assert report["overlaps"][0]["example"] == [2, 2]
    assert kd.ok("data", "check", "--json")["task"] == "demo"
    assert kd("data", "check", "--data-dir", folder)[0] == 2


def test_a_profile_that_cannot_run_exits_with_4_and_all_reasons(kd, folder):
    (folder / "dev.tsv").write_text("sentence\tlabel\ngood\t1\nbad\tx\nragged\n")
    where = ("data", "check", "--profile", "sst2", "--data-dir", folder)
    report = kd.failed(4, *where)
    assert report["fit"] is False
    errors = [problem for problem in report["problems"] if problem["level"] == "error"]
    assert [(error["what"].partition(":")[0], error["row"]) for error in errors] == [
        ("1 row cannot be read, the first is row 4", None),
        ("1 row with labels that are none of the task's 0, 1", 3),
    ]
    printed = kd(*where)[1]
    assert 'hint: if they are classes: task.labels = ["0", "1", "x"] and task.names = []' in printed
    assert "the profile cannot run on these tables: 2 errors" in printed
