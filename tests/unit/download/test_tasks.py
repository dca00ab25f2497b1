import re
from urllib.parse import urlsplit

import pytest
from glue_tables import HUB_TEXTS, write_hub, write_split
from raising import raising

from kdcli.api import QuietReporter
from kdcli.config.load import load_profile
from kdcli.download.get import SOURCES, find, get
from kdcli.errors import DataError, MissingError, UsageError
from kdcli.tasks.glue import TASKS
from kdcli.tasks.split import load_split, task_from

QUIET = QuietReporter()


@pytest.mark.parametrize("name", [name for name in TASKS if name != "ax"])
def test_the_profile_of_the_task_reads_them(name, tmp_path):
    write_hub(tmp_path / "hub", name, [3.8, 5.0] if name == "stsb" else [1, 0])
    got = get(name, tmp_path / "out", url=str(tmp_path / "hub"))
    assert {file.rows for file in got.files} == {2} and got.done
    settings = load_profile(name, flags={"task.data_dir": str(tmp_path / "out")}, environ={}).settings.task
    task = task_from(settings)
    label = {"stsb": "3.8", "mnli": "neutral", "qnli": "not_entailment", "rte": "not_entailment"}.get(name, "1")
    for split in ("train", "dev", "test"):
        row = load_split(settings, task, split, QUIET).to_dicts()[0]
        texts = [row[column] for column in task.columns]
        assert all(text.startswith(f"{column} 0 of") for text, column in zip(texts, HUB_TEXTS[name], strict=True))
        assert str(row["label"])[:14] == str(None if split == "test" else label), split
        assert str(row["index"]) == ("7" if split == "test" else "0")


def test_a_split_in_several_files(tmp_path):
    write_hub(tmp_path / "hub", "sst2", [1, 0])
    (tmp_path / "hub/sst2/train-00000-of-00001.parquet").unlink()
    columns = {"sentence": [f"text {row}" for row in range(7)], "label": [0] * 7, "idx": list(range(7))}
    write_split(tmp_path / "hub", "sst2", "train", columns, shards=3)
    got = get("sst2", tmp_path / "out", url=str(tmp_path / "hub"))
    assert sum(file.rows for file in got.files if file.path.startswith("train")) == 7
    (tmp_path / "hub/sst2/train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match="shard"):
        get("sst2", tmp_path / "again", url=str(tmp_path / "hub"))
    assert not (tmp_path / "again").exists()


def test_imdb_gets_a_dev_set_of_its_training_reviews(tmp_path):
    for split in ("train", "test", "unsupervised"):
        labels = [-1] * 40 if split == "unsupervised" else [int(row >= 20) for row in range(40)]
        columns = {"text": [f"{split} review {row}" for row in range(40)], "label": labels}
        write_split(tmp_path / "hub", "plain_text", split, columns, ["neg", "pos"])
    got = get("imdb", tmp_path / "out", url=str(tmp_path / "hub"))
    sizes = {"train.parquet": 36, "dev.parquet": 4, "test.parquet": 40, "unsupervised.parquet": 40}
    assert {file.path: file.rows for file in got.files} == sizes
    assert got.next[1].endswith(f"--input {tmp_path}/out/unsupervised.parquet")
    settings = load_profile("imdb", flags={"task.data_dir": str(tmp_path / "out")}, environ={}).settings.task
    train, dev = (load_split(settings, task_from(settings), split, QUIET).to_dicts() for split in ("train", "dev"))
    numbers = [int(row["sentence"].split()[-1]) for row in train + dev]
    assert sorted(numbers) == list(range(40)), "each training review is in train or in dev"
    assert all(row["label"] == str(int(number >= 20)) for row, number in zip(train + dev, numbers, strict=True))
    assert len({row["label"] for row in train[:12]}) == 2, "the Hub has all of one label first"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    there = write_hub(tmp_path / "there", "rte", [1, 0])

    def download(where, *, repo_type, allow_patterns, local_files_only):
        assert (where, repo_type) == ("nyu-mll/glue", "dataset")
        if local_files_only:
            raise ConnectionError("no route\nto host")
        return str(there)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


def test_what_the_hub_has_is_downloaded(hub, tmp_path):
    got = get("rte", tmp_path / "out")
    assert [file.path[:5] for file in got.files] == ["test-", "train", "valid"]
    assert get("rte", tmp_path / "out").done is False


@pytest.mark.parametrize(("task", "offline", "kind"), [("rte", True, MissingError), ("qnli", False, DataError)])
def test_what_cannot_be_downloaded(hub, tmp_path, task, offline, kind):
    with raising(kind, hint="--url FOLDER") as raised:
        get(task, tmp_path / "out", offline=offline)
    assert "\n" not in raised.value.what


def test_what_is_known_is_well_formed():
    for source in SOURCES:
        assert source.about and source.cite
        assert source.is_url == (source.kind != "task")
        if source.is_url:
            assert urlsplit(source.address).scheme == "https"
        if source.sha256 is not None:
            assert re.fullmatch("[0-9a-f]{64}", source.sha256)
    digests = {source.address: source.sha256 for source in SOURCES}
    assert all(digests[source.address] == source.sha256 for source in SOURCES), "one file has one hash"


@pytest.mark.parametrize(
    ("name", "hint"), [("sst-2", "did you mean sst2?"), ("xyz", "`kd data list` names what there is")]
)
def test_an_unknown_name(name, hint):
    with raising(UsageError, f"nothing is named {name}", hint=hint):
        find(name)
