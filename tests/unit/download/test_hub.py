import json

import polars as pl
import pytest
from glue_tables import HUB_TEXTS, MNLI

from kdcli.api import QuietReporter
from kdcli.config.load import load_profile
from kdcli.download.hub import IMDB_FILES, HubSplit, glue_tables, imdb_tables, read_splits, write_splits
from kdcli.errors import DataError, MissingError
from kdcli.tables.read import read_table
from kdcli.tasks.glue import TASKS
from kdcli.tasks.split import load_split, task_from

QUIET = QuietReporter()
THREE = ["entailment", "neutral", "contradiction"]
TWO = ["entailment", "not_entailment"]
CLASSES = {
    "sst2": ["negative", "positive"],
    "cola": ["unacceptable", "acceptable"],
    "mrpc": ["not_equivalent", "equivalent"],
    "stsb": None,
    "qqp": ["not_duplicate", "duplicate"],
    "mnli": THREE,
    "qnli": TWO,
    "rte": TWO,
    "wnli": ["not_entailment", "entailment"],
    "ax": THREE,
}
"""What the Hub calls the classes."""


def put(folder, config, split, columns, names=None, shards=1):
    """Store a split as the Hub stores it: the names of the classes are in the file's metadata."""
    (folder / config).mkdir(parents=True, exist_ok=True)
    features = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pl.DataFrame(columns)
    size = -(-len(table) // shards)
    for shard in range(shards):
        path = folder / config / f"{split}-{shard:05}-of-{shards:05}.parquet"
        table[shard * size : (shard + 1) * size].write_parquet(path, metadata=metadata)


def put_task(folder, task, labels, text="{} of {}"):
    """Store all splits of a task, two rows each; the test set has no labels."""
    dtype = pl.Int64 if CLASSES[task] else pl.Float32
    for split in TASKS[task].splits.values():
        columns = {name: [text.format(f"{name} {row}", split) for row in (0, 1)] for name in HUB_TEXTS[task]}
        found = pl.Series([-1, -1] if split.startswith("test") else labels, dtype=dtype)
        put(folder, task, split, {**columns, "label": found, "idx": pl.Series([7, 8], dtype=pl.Int32)}, CLASSES[task])
    return folder


def get(folder, task, output):
    splits = read_splits(str(folder), TASKS[task].files(task), QUIET)
    return write_splits(output, glue_tables(task, splits), no_header=TASKS[task].no_header)


EXPECTED = {
    "cola": {
        "train": "none\t1\tnone\tsentence 0 of train\nnone\t0\tnone\tsentence 1 of train\n",
        "dev": "none\t1\tnone\tsentence 0 of validation\nnone\t0\tnone\tsentence 1 of validation\n",
        "test": "index\tsentence\n7\tsentence 0 of test\n8\tsentence 1 of test\n",
    },
    "stsb": {
        "train": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "7\tnone\tnone\tnone\tnone\tnone\tnone\tsentence1 0 of train\tsentence2 0 of train\t3.800\n"
        "8\tnone\tnone\tnone\tnone\tnone\tnone\tsentence1 1 of train\tsentence2 1 of train\t5.000\n",
        "test": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n"
        "7\tnone\tnone\tnone\tnone\tnone\tnone\tsentence1 0 of test\tsentence2 0 of test\n"
        "8\tnone\tnone\tnone\tnone\tnone\tnone\tsentence1 1 of test\tsentence2 1 of test\n",
    },
    "ax": {
        "diagnostic": "index\tsentence1\tsentence2\n"
        "7\tpremise 0 of test\thypothesis 0 of test\n8\tpremise 1 of test\thypothesis 1 of test\n",
    },
}


@pytest.mark.parametrize("task", EXPECTED)
def test_the_files_are_those_of_glue(task, tmp_path):
    put_task(tmp_path / "hub", task, [3.8, 5.0] if task == "stsb" else [1, 0])
    written = get(tmp_path / "hub", task, tmp_path)
    names = {"diagnostic.tsv"} if task == "ax" else {"train.tsv", "dev.tsv", "test.tsv"}
    assert {path.name for path in written} == names and set(written.values()) == {2}
    for name, text in EXPECTED[task].items():
        assert (tmp_path / f"{name}.tsv").read_text("utf-8") == text


def test_mnli_has_two_dev_and_two_test_tables(tmp_path):
    put_task(tmp_path / "hub", "mnli", [2, 1])
    written = get(tmp_path / "hub", "mnli", tmp_path)
    columns = MNLI.split()
    expected = {
        "train": ([*columns, "label1", "gold_label"], "train"),
        "dev_matched": ([*columns, *(f"label{number}" for number in range(1, 6)), "gold_label"], "validation_matched"),
        "test_mismatched": (columns, "test_mismatched"),
    }
    assert {path.stem for path in written} == {*expected, "dev_mismatched", "test_matched"}
    for name, (header, split) in expected.items():
        rows = read_table(tmp_path / f"{name}.tsv").frame().to_dicts()
        assert list(rows[0])[:-1] == header
        filled = {key: value for key, value in rows[0].items() if value not in ("none", 2)}
        label = {} if split.startswith("test") else {"gold_label": "contradiction"}
        texts = {"sentence1": f"premise 0 of {split}", "sentence2": f"hypothesis 0 of {split}"}
        assert filled == {"index": "7", **texts, **label}
    assert rows[1]["index"] == "8"
    dev = read_table(tmp_path / "dev_mismatched.tsv").frame()["gold_label"]
    assert dev.to_list() == ["contradiction", "neutral"]


def test_the_names_of_the_classes_are_those_that_the_dataset_has(tmp_path):
    """A copy whose classes are numbered otherwise must not be read by our numbers."""
    rows = pl.DataFrame({"sentence1": ["a"], "sentence2": ["b"], "label": [0], "idx": [0]})
    tables = glue_tables("rte", dict.fromkeys(("train", "validation", "test"), HubSplit(rows, tuple(TWO[::-1]))))
    assert tables["train"]["label"].to_list() == ["not_entailment"]
    without = glue_tables("rte", dict.fromkeys(("train", "validation", "test"), HubSplit(rows, ())))
    assert without["train"]["label"].to_list() == ["entailment"]
    with pytest.raises(DataError, match="the classes of the dataset are yes, no"):
        glue_tables("rte", dict.fromkeys(("train", "validation", "test"), HubSplit(rows, ("yes", "no"))))
    wrong = rows.with_columns(label=2)
    with pytest.raises(DataError, match="labels without a class"):
        glue_tables("rte", dict.fromkeys(("train", "validation", "test"), HubSplit(wrong, ())))


def test_a_label_that_nobody_agreed_on_and_labels_that_are_texts(tmp_path):
    rows = pl.DataFrame({"premise": ["a", "b"], "hypothesis": ["b", "c"], "label": [-1, 2]})
    splits = dict.fromkeys(TASKS["mnli"].splits.values(), HubSplit(rows, tuple(THREE)))
    table = glue_tables("mnli", splits)["dev_matched"]
    assert table["gold_label"].to_list() == ["-", "contradiction"]
    assert table["index"].to_list() == ["0", "1"], "counted where the dataset has no idx"
    rows = rows.with_columns(label=pl.Series(["neutral", "entailment"]))
    splits = dict.fromkeys(TASKS["mnli"].splits.values(), HubSplit(rows, ()))
    assert glue_tables("mnli", splits)["train"]["gold_label"].to_list() == ["neutral", "entailment"]


def test_a_score_that_has_more_than_three_decimals_keeps_them():
    scores = pl.Series([0, 5, 2.533, 4.75, 3.3333333], dtype=pl.Float32)
    rows = pl.DataFrame({"sentence1": ["a"] * 5, "sentence2": ["b"] * 5, "label": scores})
    table = glue_tables("stsb", dict.fromkeys(("train", "validation", "test"), HubSplit(rows, ())))["train"]
    texts = table["score"].to_list()
    assert texts[:4] == ["0.000", "5.000", "2.533", "4.750"]
    assert pl.Series([float(text) for text in texts], dtype=pl.Float32).equals(scores)


def test_a_column_that_is_missing():
    rows = pl.DataFrame({"text": ["a"], "label": [0]})
    with pytest.raises(DataError, match="the split train of the dataset has no column 'sentence'") as raised:
        glue_tables("sst2", dict.fromkeys(("train", "validation", "test"), HubSplit(rows, ())))
    assert "text, label" in raised.value.hint


@pytest.mark.parametrize("odd", ["a\ttab", "a line\nend", "an end\r"])
@pytest.mark.parametrize("task", ["sst2", "cola"])
def test_a_text_that_tsv_cannot_hold_makes_all_tables_parquet(odd, task, tmp_path):
    put_task(tmp_path / "hub", task, [1, 0])
    columns = {name: ["plain", odd] for name in HUB_TEXTS[task]} | {"label": [1, 0], "idx": [0, 1]}
    put(tmp_path / "hub", task, "validation", columns)
    written = get(tmp_path / "hub", task, tmp_path)
    assert {path.name for path in written} == {"train.parquet", "dev.parquet", "test.parquet"}
    dev = read_table(tmp_path / "dev.parquet").frame()
    assert tuple(dev.columns[:-1]) == tuple(TASKS[task].train)
    assert dev[HUB_TEXTS[task][-1]].to_list() == ["plain", odd]


def test_a_split_in_several_files(tmp_path):
    put_task(tmp_path / "hub", "sst2", [1, 0])
    (tmp_path / "hub/sst2/train-00000-of-00001.parquet").unlink()
    columns = {"sentence": [f"text {row}" for row in range(7)], "label": [0] * 7, "idx": list(range(7))}
    put(tmp_path / "hub", "sst2", "train", columns, shards=3)
    get(tmp_path / "hub", "sst2", tmp_path)
    assert read_table(tmp_path / "train.tsv").frame()["sentence"].to_list() == columns["sentence"]
    (tmp_path / "hub/sst2/train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match=r"the folder has no sst2/train-\*\.parquet"):
        get(tmp_path / "hub", "sst2", tmp_path)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "ax"])
def test_the_profile_of_the_task_reads_them(name, tmp_path):
    put_task(tmp_path / "hub", name, [3.8, 5.0] if name == "stsb" else [1, 0])
    get(tmp_path / "hub", name, tmp_path)
    settings = load_profile(name, flags={"task.data_dir": str(tmp_path)}, environ={}).settings.task
    task = task_from(settings)
    label = {"stsb": "3.800", "mnli": "neutral", "qnli": "not_entailment", "rte": "not_entailment"}.get(name, "1")
    for split in ("train", "dev", "test"):
        row = load_split(settings, task, split, QUIET).to_dicts()[0]
        texts = [row[column] for column in task.columns]
        assert all(text.startswith(f"{column} 0 of") for text, column in zip(texts, HUB_TEXTS[name], strict=True))
        assert row["label"] == (None if split == "test" else label)


def put_imdb(folder, rows=40, text="review {}"):
    for split in ("train", "test", "unsupervised"):
        texts = [f"{split} {text.format(row)}" for row in range(rows)]
        labels = [-1] * rows if split == "unsupervised" else [int(row >= rows / 2) for row in range(rows)]
        put(folder, "plain_text", split, {"text": texts, "label": labels}, ["neg", "pos"])
    return folder


def get_imdb(folder, output):
    return write_splits(output, imdb_tables(read_splits(str(folder), IMDB_FILES, QUIET)))


def test_imdb_gets_a_dev_set_of_its_training_reviews(tmp_path):
    put_imdb(tmp_path / "hub")
    written = get_imdb(tmp_path / "hub", tmp_path)
    sizes = {"train.tsv": 36, "dev.tsv": 4, "test.tsv": 40, "unsupervised.txt": 40}
    assert {path.name: rows for path, rows in written.items()} == sizes
    train, dev, test = (read_table(tmp_path / f"{name}.tsv").frame().to_dicts() for name in ("train", "dev", "test"))
    both = sorted(int(row["sentence"].split()[-1]) for row in train + dev)
    assert both == list(range(40)), "each training review is in train or in dev"
    assert all(row["label"] == str(int(int(row["sentence"].split()[-1]) >= 20)) for row in train + dev + test)
    assert len({row["label"] for row in train[:12]}) == 2, "the Hub has all of one label first"
    assert (tmp_path / "unsupervised.txt").read_text().startswith("unsupervised review 0\nunsupervised review 1\n")
    again = tmp_path / "again"
    again.mkdir()
    get_imdb(tmp_path / "hub", again)
    assert (again / "dev.tsv").read_bytes() == (tmp_path / "dev.tsv").read_bytes()


class Hub:
    def __init__(self, there, cache):
        self.there, self.cache, self.asked = there, cache, []

    def __call__(self, where, *, repo_type, allow_patterns, local_files_only):
        assert repo_type == "dataset"
        self.asked.append(local_files_only)
        if not local_files_only:
            if self.there is None:
                raise ConnectionError("no route\nto host")
            for pattern in allow_patterns:
                for path in self.there.glob(pattern):
                    copy = self.cache / path.relative_to(self.there)
                    copy.parent.mkdir(exist_ok=True, parents=True)
                    copy.write_bytes(path.read_bytes())
        return str(self.cache)


@pytest.fixture
def on_hub(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    there = Hub(put_task(tmp_path / "there", "rte", [1, 0]), tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", there)
    return there


def test_what_the_hub_has_is_downloaded_once(on_hub):
    for asked in ([True, False], [True]):
        on_hub.asked.clear()
        splits = read_splits("nyu-mll/glue", TASKS["rte"].files("rte"), QUIET)
        assert len(splits["train"].rows) == 2 and splits["train"].names == tuple(TWO)
        assert on_hub.asked == asked
    assert {path.name[:5] for path in on_hub.cache.rglob("*.parquet")} == {"train", "valid", "test-"}
    on_hub.there = None
    assert set(read_splits("nyu-mll/glue", TASKS["rte"].files("rte"), QUIET, offline=True)) == set(splits)


def test_what_cannot_be_downloaded(on_hub):
    for task, offline, there in (("rte", True, on_hub.there), ("rte", False, None), ("qnli", False, on_hub.there)):
        on_hub.there = there
        with pytest.raises(MissingError, match="'nyu-mll/glue' cannot be downloaded") as raised:
            read_splits("nyu-mll/glue", TASKS[task].files(task), QUIET, offline=offline)
        assert "--url FOLDER" in raised.value.hint and "\n" not in raised.value.what
