import sys

import pyarrow as pa
import pytest

from kdcli.api import QuietReporter
from kdcli.config.load import load_profile
from kdcli.download import hub
from kdcli.download.glue import TASKS, glue_tables
from kdcli.download.hub import Split, open_splits
from kdcli.download.imdb import FILES, imdb_tables
from kdcli.download.split_files import write_splits
from kdcli.errors import DataError, MissingError
from kdcli.tables.read import read_table
from kdcli.tasks.split import load_split
from kdcli.tasks.task import task_from

datasets = pytest.importorskip("datasets")

QUIET = QuietReporter()
THREE = ["entailment", "neutral", "contradiction"]
TWO = ["entailment", "not_entailment"]
TEXTS = {
    "sst2": ("sentence",),
    "cola": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
    "qnli": ("question", "sentence"),
    "rte": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
    "ax": ("premise", "hypothesis"),
}
"""The Hub's text columns."""
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


def put(folder, config, split, columns, features, shards=1):
    """Store a split as the Hub stores it."""
    (folder / config).mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    for shard in range(shards):
        path = folder / config / f"{split}-{shard:05}-of-{shards:05}.parquet"
        table.shard(shards, shard, contiguous=True).to_parquet(str(path))


def put_task(folder, task, labels, text="{} of {}"):
    """Store all splits of a task, two rows each; the test set has no labels."""
    label = datasets.ClassLabel(names=CLASSES[task]) if CLASSES[task] else datasets.Value("float32")
    features = {name: datasets.Value("string") for name in TEXTS[task]}
    features |= {"label": label, "idx": datasets.Value("int32")}
    for split in TASKS[task].splits.values():
        columns = {name: [text.format(f"{name} {row}", split) for row in (0, 1)] for name in TEXTS[task]}
        columns |= {"label": [-1, -1] if split.startswith("test") else labels, "idx": [7, 8]}
        put(folder, task, split, columns, features)
    return folder


def get(folder, task, output):
    with open_splits(str(folder), TASKS[task].files(task), QUIET) as splits:
        return write_splits(output, glue_tables(task, splits), no_header=TASKS[task].no_header)


EXPECTED = {
    "sst2": {
        "train": "sentence\tlabel\nsentence 0 of train\t1\nsentence 1 of train\t0\n",
        "dev": "sentence\tlabel\nsentence 0 of validation\t1\nsentence 1 of validation\t0\n",
        "test": "index\tsentence\n7\tsentence 0 of test\n8\tsentence 1 of test\n",
    },
    "cola": {
        "train": "none\t1\tnone\tsentence 0 of train\nnone\t0\tnone\tsentence 1 of train\n",
        "dev": "none\t1\tnone\tsentence 0 of validation\nnone\t0\tnone\tsentence 1 of validation\n",
        "test": "index\tsentence\n7\tsentence 0 of test\n8\tsentence 1 of test\n",
    },
    "mrpc": {
        "train": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        "1\tnone\tnone\tsentence1 0 of train\tsentence2 0 of train\n"
        "0\tnone\tnone\tsentence1 1 of train\tsentence2 1 of train\n",
        "test": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        "7\tnone\tnone\tsentence1 0 of test\tsentence2 0 of test\n"
        "8\tnone\tnone\tsentence1 1 of test\tsentence2 1 of test\n",
    },
    "stsb": {
        "train": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "7\tnone\tnone\tnone\tnone\tnone\tnone\tsentence1 0 of train\tsentence2 0 of train\t3.800\n"
        "8\tnone\tnone\tnone\tnone\tnone\tnone\tsentence1 1 of train\tsentence2 1 of train\t5.000\n",
        "test": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n"
        "7\tnone\tnone\tnone\tnone\tnone\tnone\tsentence1 0 of test\tsentence2 0 of test\n"
        "8\tnone\tnone\tnone\tnone\tnone\tnone\tsentence1 1 of test\tsentence2 1 of test\n",
    },
    "qqp": {
        "train": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "7\tnone\tnone\tquestion1 0 of train\tquestion2 0 of train\t1\n"
        "8\tnone\tnone\tquestion1 1 of train\tquestion2 1 of train\t0\n",
        "test": "id\tquestion1\tquestion2\n"
        "7\tquestion1 0 of test\tquestion2 0 of test\n8\tquestion1 1 of test\tquestion2 1 of test\n",
    },
    "qnli": {
        "train": "index\tquestion\tsentence\tlabel\n7\tquestion 0 of train\tsentence 0 of train\tnot_entailment\n"
        "8\tquestion 1 of train\tsentence 1 of train\tentailment\n",
        "test": "index\tquestion\tsentence\n"
        "7\tquestion 0 of test\tsentence 0 of test\n8\tquestion 1 of test\tsentence 1 of test\n",
    },
    "rte": {
        "dev": "index\tsentence1\tsentence2\tlabel\n"
        "7\tsentence1 0 of validation\tsentence2 0 of validation\tnot_entailment\n"
        "8\tsentence1 1 of validation\tsentence2 1 of validation\tentailment\n",
        "test": "index\tsentence1\tsentence2\n"
        "7\tsentence1 0 of test\tsentence2 0 of test\n8\tsentence1 1 of test\tsentence2 1 of test\n",
    },
    "wnli": {
        "dev": "index\tsentence1\tsentence2\tlabel\n"
        "7\tsentence1 0 of validation\tsentence2 0 of validation\t1\n"
        "8\tsentence1 1 of validation\tsentence2 1 of validation\t0\n",
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
    columns = (
        "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
    )
    columns = [*columns.split(), "sentence1", "sentence2"]
    expected = {
        "train": ([*columns, "label1", "gold_label"], "train"),
        "dev_matched": ([*columns, *(f"label{number}" for number in range(1, 6)), "gold_label"], "validation_matched"),
        "test_mismatched": (columns, "test_mismatched"),
    }
    assert {path.stem for path in written} == {*expected, "dev_mismatched", "test_matched"}
    for name, (header, split) in expected.items():
        rows = read_table(tmp_path / f"{name}.tsv").table().to_pylist()
        assert list(rows[0]) == header
        filled = {key: value for key, value in rows[0].items() if value != "none"}
        label = {} if split.startswith("test") else {"gold_label": "contradiction"}
        texts = {"sentence1": f"premise 0 of {split}", "sentence2": f"hypothesis 0 of {split}"}
        assert filled == {"index": "7", **texts, **label}
    assert rows[1]["index"] == "8"
    dev = read_table(tmp_path / "dev_mismatched.tsv").table()["gold_label"]
    assert dev.to_pylist() == ["contradiction", "neutral"]


def test_the_names_of_the_classes_are_those_that_the_dataset_has(tmp_path):
    """A copy whose classes are numbered otherwise must not be read by our numbers."""
    rows = pa.table({"sentence1": ["a"], "sentence2": ["b"], "label": [0], "idx": [0]})
    tables = glue_tables("rte", dict.fromkeys(("train", "validation", "test"), Split(rows, tuple(TWO[::-1]))))
    assert tables["train"]["label"].to_pylist() == ["not_entailment"]
    without = glue_tables("rte", dict.fromkeys(("train", "validation", "test"), Split(rows, ())))
    assert without["train"]["label"].to_pylist() == ["entailment"]
    with pytest.raises(DataError, match="the classes of the dataset are yes, no"):
        glue_tables("rte", dict.fromkeys(("train", "validation", "test"), Split(rows, ("yes", "no"))))
    wrong = rows.set_column(2, "label", pa.array([2]))
    with pytest.raises(DataError, match="labels that are no classes"):
        glue_tables("rte", dict.fromkeys(("train", "validation", "test"), Split(wrong, ())))


def test_a_label_that_nobody_agreed_on_and_labels_that_are_texts(tmp_path):
    rows = pa.table({"premise": ["a", "b"], "hypothesis": ["b", "c"], "label": [-1, 2]})
    splits = dict.fromkeys(TASKS["mnli"].splits.values(), Split(rows, tuple(THREE)))
    table = glue_tables("mnli", splits)["dev_matched"]
    assert table["gold_label"].to_pylist() == ["-", "contradiction"]
    assert table["index"].to_pylist() == ["0", "1"], "counted where the dataset has no idx"
    rows = rows.set_column(2, "label", pa.array(["neutral", "entailment"]))
    splits = dict.fromkeys(TASKS["mnli"].splits.values(), Split(rows, ()))
    assert glue_tables("mnli", splits)["train"]["gold_label"].to_pylist() == ["neutral", "entailment"]


def test_a_score_that_has_more_than_three_decimals_keeps_them():
    scores = pa.array([0, 5, 2.533, 4.75, 3.3333333], pa.float32())
    rows = pa.table({"sentence1": ["a"] * 5, "sentence2": ["b"] * 5, "label": scores})
    table = glue_tables("stsb", dict.fromkeys(("train", "validation", "test"), Split(rows, ())))["train"]
    texts = table["score"].to_pylist()
    assert texts[:4] == ["0.000", "5.000", "2.533", "4.750"]
    assert pa.array([float(text) for text in texts], pa.float32()) == scores


def test_a_column_that_is_missing():
    rows = pa.table({"text": ["a"], "label": [0]})
    with pytest.raises(DataError, match="the split train of the dataset has no column 'sentence'") as raised:
        glue_tables("sst2", dict.fromkeys(("train", "validation", "test"), Split(rows, ())))
    assert raised.value.hint == "it has text, label, idx"


def test_texts_are_written_as_they_are(tmp_path):
    text = ' "quoted" \u0085\u2028 a lone \r CR, NA, trailing space '
    put_task(tmp_path / "hub", "sst2", [1, 0], text=text + "{} {}")
    get(tmp_path / "hub", "sst2", tmp_path)
    table = read_table(tmp_path / "train.tsv").table()
    assert table["sentence"].to_pylist() == [f"{text}sentence {row} train" for row in (0, 1)]


@pytest.mark.parametrize("odd", ["a\ttab", "a line\nend", "an end\r"])
@pytest.mark.parametrize("task", ["sst2", "cola", "stsb"])
def test_a_text_that_tsv_cannot_hold_makes_all_tables_parquet(odd, task, tmp_path):
    put_task(tmp_path / "hub", task, [1, 0])
    features = {name: datasets.Value("string") for name in TEXTS[task]}
    features |= {"label": datasets.Value("float32" if task == "stsb" else "int64"), "idx": datasets.Value("int32")}
    columns = {name: ["plain", odd] for name in TEXTS[task]} | {"label": [1, 0], "idx": [0, 1]}
    put(tmp_path / "hub", task, "validation", columns, features)
    written = get(tmp_path / "hub", task, tmp_path)
    assert {path.name for path in written} == {"train.parquet", "dev.parquet", "test.parquet"}
    dev = read_table(tmp_path / "dev.parquet").table()
    assert tuple(dev.column_names) == tuple(TASKS[task].train)
    assert dev[TEXTS[task][-1]].to_pylist() == ["plain", odd]


def test_a_split_in_several_files(tmp_path):
    put_task(tmp_path / "hub", "sst2", [1, 0])
    features = {"sentence": datasets.Value("string"), "label": datasets.Value("int64"), "idx": datasets.Value("int32")}
    (tmp_path / "hub/sst2/train-00000-of-00001.parquet").unlink()
    columns = {"sentence": [f"text {row}" for row in range(7)], "label": [0] * 7, "idx": list(range(7))}
    put(tmp_path / "hub", "sst2", "train", columns, features, shards=3)
    get(tmp_path / "hub", "sst2", tmp_path)
    assert read_table(tmp_path / "train.tsv").table()["sentence"].to_pylist() == columns["sentence"]
    (tmp_path / "hub/sst2/train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match=r"the folder has no sst2/train-\*\.parquet"):
        get(tmp_path / "hub", "sst2", tmp_path)


def test_a_card_with_many_configurations_makes_no_difference(tmp_path):
    """As ``nyu-mll/glue`` has it: the library would read the splits of the first, or none."""
    put_task(tmp_path / "hub", "rte", [1, 0])
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test-*\n" for name in ("ax", "rte")
    )
    (tmp_path / "hub" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert len(get(tmp_path / "hub", "rte", tmp_path)) == 3


@pytest.mark.parametrize("name", [name for name in TASKS if name != "ax"])
def test_the_profile_of_the_task_reads_them(name, tmp_path):
    put_task(tmp_path / "hub", name, [3.8, 5.0] if name == "stsb" else [1, 0])
    get(tmp_path / "hub", name, tmp_path)
    settings = load_profile(name, flags={"task.data_dir": str(tmp_path)}, environ={}).settings.task
    task = task_from(settings)
    label = {"stsb": "3.800", "mnli": "neutral", "qnli": "not_entailment", "rte": "not_entailment"}.get(name, "1")
    for split in ("train", "dev", "test"):
        row = load_split(settings, task, split, QUIET).to_pylist()[0]
        texts = [row[column] for column in task.columns]
        assert all(text.startswith(f"{column} 0 of") for text, column in zip(texts, TEXTS[name], strict=True))
        assert row["label"] == (None if split == "test" else label)


# IMDB


def put_imdb(folder, rows=40, text="review {}"):
    label = datasets.ClassLabel(names=["neg", "pos"])
    features = {"text": datasets.Value("string"), "label": label}
    for split in ("train", "test", "unsupervised"):
        texts = [f"{split} {text.format(row)}" for row in range(rows)]
        labels = [-1] * rows if split == "unsupervised" else [int(row >= rows / 2) for row in range(rows)]
        put(folder, "plain_text", split, {"text": texts, "label": labels}, features)
    return folder


def get_imdb(folder, output):
    with open_splits(str(folder), FILES, QUIET) as splits:
        return write_splits(output, imdb_tables(splits))


def test_imdb_gets_a_dev_set_of_its_training_reviews(tmp_path):
    put_imdb(tmp_path / "hub")
    written = get_imdb(tmp_path / "hub", tmp_path)
    assert {path.name: rows for path, rows in written.items()} == {
        "train.tsv": 36,
        "dev.tsv": 4,
        "test.tsv": 40,
        "unsupervised.txt": 40,
    }
    train, dev, test = (read_table(tmp_path / f"{name}.tsv").table().to_pylist() for name in ("train", "dev", "test"))
    both = sorted(int(row["sentence"].split()[-1]) for row in train + dev)
    assert both == list(range(40)), "each training review is in train or in dev"
    assert all(row["label"] == str(int(int(row["sentence"].split()[-1]) >= 20)) for row in train + dev + test)
    assert len({row["label"] for row in train[:12]}) == 2, "the Hub has all of one label first"
    assert (tmp_path / "unsupervised.txt").read_text().splitlines()[:2] == [
        "unsupervised review 0",
        "unsupervised review 1",
    ]
    again = tmp_path / "again"
    again.mkdir()
    get_imdb(tmp_path / "hub", again)
    assert (again / "dev.tsv").read_bytes() == (tmp_path / "dev.tsv").read_bytes()


def test_imdb_with_line_ends(tmp_path):
    put_imdb(tmp_path / "hub", text="review {}\nmore")
    written = get_imdb(tmp_path / "hub", tmp_path)
    assert {path.suffix for path in written} == {".parquet"}
    assert read_table(tmp_path / "unsupervised.parquet").columns == ("sentence",)


# What cannot be had


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingError, match="need the library datasets") as raised:
        get(tmp_path, "sst2", tmp_path)
    assert raised.value.hint == "pip install 'kdcli[data]'"


def test_a_folder_without_the_task(tmp_path):
    put_task(tmp_path, "rte", [1, 0])
    with pytest.raises(DataError, match=r"the folder has no sst2/train-\*\.parquet") as raised:
        get(tmp_path, "sst2", tmp_path)
    assert raised.value.file == str(tmp_path)


def test_a_file_that_is_no_parquet(tmp_path):
    put_task(tmp_path, "rte", [1, 0])
    path = tmp_path / "rte" / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="the copy of the dataset cannot be read"):
        get(tmp_path, "rte", tmp_path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the Hub's that holds one file of a dataset, or more."""
    folder = tmp_path / "cache"
    folder.mkdir()

    def snapshot(where, **options):
        assert options == {"repo_type": "dataset", "local_files_only": True}
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    return folder


class NoHub:
    def dataset_info(self, *args, **options):
        raise ConnectionError("no route\nto host")


def test_what_is_in_the_cache_is_taken_from_there(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "HfApi", NoHub)
    put_task(cache, "rte", [1, 0])
    with open_splits("nyu-mll/glue", TASKS["rte"].files("rte"), QUIET, offline=True) as splits:
        assert splits["train"].rows.num_rows == 2 and splits["train"].names == tuple(TWO)


def test_offline_and_not_in_the_cache(cache, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", None)
    put_task(cache, "rte", [1, 0])
    (cache / "rte" / "test-00000-of-00001.parquet").unlink()
    with (
        pytest.raises(MissingError, match=r"'nyu-mll/glue' cannot be had .*: it is not in the cache") as raised,
        open_splits("nyu-mll/glue", TASKS["rte"].files("rte"), QUIET, offline=True),
    ):
        pass
    assert "--url FOLDER" in raised.value.hint


def test_no_hub(cache, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", NoHub)
    with (
        pytest.raises(MissingError, match=r"cannot be had from the Hugging Face Hub: no route$"),
        open_splits("nyu-mll/glue", TASKS["rte"].files("rte"), QUIET),
    ):
        pass


def test_what_the_hub_has_is_fetched_file_by_file(cache, monkeypatch, tmp_path):
    there = put_task(tmp_path / "there", "rte", [1, 0])
    put_task(there, "wnli", [1, 0])
    fetched = []

    class Api:
        def dataset_info(self, where, *, files_metadata, timeout):
            assert (where, files_metadata) == ("somebody/glue", True)
            paths = [path for path in there.rglob("*") if path.is_file()]
            files = [Sibling(path.relative_to(there).as_posix(), path.stat().st_size) for path in paths]
            return type("Info", (), {"siblings": files})()

    class Sibling:
        def __init__(self, rfilename, size):
            self.rfilename, self.size = rfilename, size

    def download(where, name, *, repo_type):
        fetched.append(name)
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_bytes((there / name).read_bytes())

    class Counting(QuietReporter):
        def progress(self, title, total=None, unit="rows"):
            self.total, self.done = total, 0
            return super().progress(title, total, unit)

        def advance(self, steps=1, **shown):
            self.done += steps

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    counting = Counting()
    with open_splits("somebody/glue", TASKS["rte"].files("rte"), counting) as splits:
        assert set(splits) == {"train", "validation", "test"}
    assert sorted(fetched) == [f"rte/{split}-00000-of-00001.parquet" for split in ("test", "train", "validation")]
    assert counting.done == counting.total == sum((cache / name).stat().st_size for name in fetched)
    with (
        pytest.raises(MissingError, match=r"it has no qnli/train-\*\.parquet"),
        open_splits("somebody/glue", TASKS["qnli"].files("qnli"), QUIET),
    ):
        pass


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    """The library copies all that it reads into a cache."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    put_task(tmp_path / "hub", "rte", [1, 0])
    get(tmp_path / "hub", "rte", tmp_path)
    assert list(scratch.iterdir()) == []
