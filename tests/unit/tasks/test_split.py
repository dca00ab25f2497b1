import json
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest
from glue_tables import write
from raising import raising

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.tasks import split as splits
from kdcli.tasks.check import check_data
from kdcli.tasks.split import check_labelled, load_split, load_table, split_files, stream_table, task_from

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
TRAIN = "sentence\tlabel\ngood\t1\nbad\t0\n"


@pytest.fixture
def load(tmp_path, settings_of, notes):
    """Write a split of a task, and read it."""

    def read(content, split="train", task="SST-2", **changes):
        (tmp_path / f"{split}.tsv").write_text(content, "utf-8")
        settings = settings_of(task, **changes)
        return load_split(settings, task_from(settings), split, notes)

    return read


@pytest.mark.parametrize(
    ("there", "read"),
    [
        (["dev_matched.tsv"], ["dev_matched.tsv"]),
        (["validation_mismatched.parquet", "validation_matched.parquet"], None),
        (["validation_matched-00000-of-00001.parquet"], ["validation_matched-00000-of-00001.parquet"]),
        (["dev.csv", "dev_matched.tsv", "dev.tsv.gz"], ["dev.tsv.gz"]),
        (["development.tsv", "dev.tsv.bak", "xdev.tsv", "dev-00001-of-00002.parquet"], []),
    ],
)
def test_the_names_that_a_split_may_have(tmp_path, settings_of, there, read):
    for name in there:
        (tmp_path / name).write_text("x")
    found = [path.name for path in split_files(settings_of("MNLI"), "dev")]
    assert found == (sorted(there) if read is None else read)


def test_the_first_rows_show_a_wrong_label_before_the_work(tmp_path, settings_of):
    settings = settings_of("SST-2")
    (tmp_path / "train.tsv").write_text(TRAIN)
    check_labelled(settings, task_from(settings), "train")
    (tmp_path / "train.tsv").write_text(f"{TRAIN}dull\tbilling\n")
    with raising(DataError, "'billing'", row=4, key="label"):
        check_labelled(settings, task_from(settings), "train")
    with raising(DataError, "dev"):
        check_labelled(settings, task_from(settings), "dev")


def test_a_table_that_is_passed_over_is_told_of(load, tmp_path, notes):
    (tmp_path / "train.csv").write_text("sentence,label\nother,1\n")
    load(TRAIN)
    assert "train.tsv read, and not train.csv" in notes.infos


def test_labels_by_name_or_number_are_read_as_the_tasks(tmp_path, settings_of, notes):
    settings = settings_of("MNLI")
    (tmp_path / "train.csv").write_text("premise,hypothesis,label\na,b,2\nc,d,0\n")
    table = load_split(settings, task_from(settings), "train", notes)
    assert table["label"].to_list() == ["contradiction", "entailment"]
    assert any("0 = entailment, 1 = neutral, 2 = contradiction" in info for info in notes.infos)


def test_rows_without_a_gold_label_are_dropped_and_counted(tmp_path, settings_of, notes):
    settings = settings_of("MNLI", drop_labels=("-",))
    rows = "".join(f"{place}\tb\t{label}\n" for place, label in enumerate(["neutral", "-", "entailment", "-"]))
    for split, name in (("train", "train.tsv"), ("dev", "dev_matched.tsv")):
        (tmp_path / name).write_text(f"sentence1\tsentence2\tgold_label\n{rows}")
        table = load_split(settings, task_from(settings), split, notes).select("sentence1", "label")
        assert table.rows() == [("0", "neutral"), ("2", "entailment")]
    assert "train.tsv: 2 rows dropped whose label is -" in notes.infos
    predicted = load_table(tmp_path / "train.tsv", settings, task_from(settings), notes).select("sentence1", "label")
    assert predicted.rows() == [("0", "neutral"), ("1", None), ("2", "entailment"), ("3", None)], "none is dropped"


def test_a_split_or_a_data_folder_that_is_not_there(load, settings_of, notes, tmp_path):
    load(TRAIN)
    settings = settings_of("SST-2")
    with raising(DataError, "there is no dev table", file=tmp_path, hint="the folder holds train.tsv"):
        load_split(settings, task_from(settings), "dev", notes)
    (tmp_path / "file").write_text("")
    for folder, what in (
        ("", "no data folder is named"),
        (str(tmp_path / "none"), "no such data folder"),
        (str(tmp_path / "file"), "a file, not a data folder"),
    ):
        settings = settings_of("SST-2", data_dir=folder)
        with raising(DataError, what, key="task.data_dir", hint="--data-dir"):
            load_split(settings, task_from(settings), "train", notes)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_rows_without_a_label_are_left_out_and_counted(load, notes, settings_of, split):
    table = load(TRAIN + "no label\t\nfine\t 1\n", split)
    assert table.rows() == [("0", "good", "1"), ("1", "bad", "0"), ("2", "fine", "1")]
    assert notes.warnings == [f"{split}.tsv: 1 rows without a label are left out, the first is row 4"]
    problems = check_data(settings_of("SST-2"), task_from(settings_of("SST-2")), notes).problems
    assert ("warning", 4) in [(problem.level, problem.row) for problem in problems]
    assert any("spaces" in info for info in notes.infos)


@pytest.mark.parametrize(
    ("rows", "split", "changes"),
    [
        ("good\t1\nbad\t0\nodd\t2\n", "train", {}),
        ("good\t1\nbad\t0\nodd\t2\n", "dev", {}),
        ("good\t\nfine\t1\nbad\t2\n", "test", {}),
        ("good\t1\nragged\nbad\t2\n", "train", {"bad_rows": "skip"}),
        ("good\t-\nfine\t1\nbad\t2\n", "train", {"drop_labels": ("-",)}),
        ("good\t1\nfine\t2\nbad\t0\n", "train", {"labels": ("1", "2")}),  # numbers do not stand for numbers
        ("good\t1\nfine\t0\nbad\tnegative\n", "train", {}),  # a table has one spelling
    ],
)
def test_a_label_outside_the_tasks_names_its_row(load, tmp_path, rows, split, changes):
    with raising(DataError, "is none of the task's", row=4, file=tmp_path / f"{split}.tsv"):
        load("sentence\tlabel\n" + rows, split, **changes)


@pytest.mark.parametrize("score", ["high", "nan", "inf", "1,5", "5.1", "-0.5"])
@pytest.mark.parametrize("within", [(0, 5), None])
def test_a_score_that_is_no_number_in_the_range(load, score, within):
    content = f"sentence1\tsentence2\tscore\na\tb\t5\na\tb\t{score}\n"
    if within is None and score in ("5.1", "-0.5"):
        assert len(load(content, task="STS-B", score_range=None)) == 2
        return
    with raising(DataError, "is no number", row=3):
        load(content, task="STS-B", score_range=within)


def test_a_class_without_rows_is_a_warning_and_an_empty_text_is_no_training_text(load, notes):
    content = "sentence1\tsentence2\tgold_label\na\tb\tneutral\nc\td\tentailment\n"
    load(content, task="MNLI")
    assert notes.warnings == ["train.tsv: no row has the label contradiction"]
    table = load(TRAIN + "\t0\n \t1\n")
    assert table["sentence"].to_list() == ["good", "bad"]
    assert notes.warnings[1:] == ["train.tsv: 2 rows with an empty text are left out, the first is row 4"]


def test_a_null_is_no_text_and_a_number_neither(tmp_path, settings_of, notes):
    settings = settings_of("SST-2")
    for content, what, row in (
        ('{"sentence": "x"}\n{"label": 1}\n', "no text", 2),
        ('{"sentence": 1, "label": 1}\n', "Int64", None),
    ):
        (tmp_path / "a.jsonl").write_text(content)
        with raising(DataError, what, key="sentence", row=row):
            load_table(tmp_path / "a.jsonl", settings, task_from(settings), notes)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("SST-2", (67_349, 872, 1_821)),
        ("CoLA", (8_551, 1_043, 1_063)),
        ("MRPC", (2_576, 1_500, None)),
        ("STS-B", (5_749, 1_500, 1_379)),
        ("RTE", (2_490, 277, 3_000)),
        ("QNLI", (3_963, 500, None)),
        ("QQP", (19_496, 2_000, None)),
        ("MNLI", (9_888, 3_119, None)),
    ],
)
def test_glue(settings_of, notes, name, sizes):
    settings = settings_of(name, data_dir=str(SHARED / "glue" / name))
    task = task_from(settings)
    for split, size in zip(("train", "dev", "test"), sizes, strict=True):
        assert bool(split_files(settings, split)) == (size is not None)
        if size:
            table = load_split(settings, task, split, notes)
            assert len(table) == size
            assert table["label"].null_count() == (size if split == "test" else 0)
            assert table["index"].null_count() == 0
            assert all(len(set(table[column].to_list())) > size / 4 for column in task.columns), "texts, not ids"
    assert notes.warnings == []


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_stream_gives_what_a_whole_table_gives(split, tmp_path, settings_of, notes):
    write("mnli", tmp_path)
    settings = settings_of("MNLI", drop_labels=("-",))
    task, path = task_from(settings), next(tmp_path.glob(f"{split}*.tsv"))
    whole = load_table(path, settings, task, notes, labels=False)
    assert pl.concat(stream_table(path, settings, task, notes)).equals(whole.select("index", *task.columns))


def test_rows_are_counted_over_the_blocks_of_a_file(tmp_path, settings_of, notes, monkeypatch):
    monkeypatch.setattr("kdcli.tables.BLOCK", 1 << 20)
    (tmp_path / "many.tsv").write_text("sentence\n" + "a text of some length\n" * 100_000)
    settings = settings_of("SST-2")
    batches = list(stream_table(tmp_path / "many.tsv", settings, task_from(settings), notes))
    assert len(batches) > 2
    assert pl.concat(batches)["index"].to_list() == [str(row) for row in range(100_000)]
    (tmp_path / "none.tsv").write_text("sentence\tlabel\n")
    with pytest.raises(DataError, match="no rows"):
        list(stream_table(tmp_path / "none.tsv", settings, task_from(settings), notes))


@pytest.mark.parametrize(
    "labels",
    [
        pl.Series([1, 0], dtype=pl.Int8),
        pl.Series([1.0, 0.0], dtype=pl.Float32),
        pl.Series([True, False]),
        pl.Series(["1", "0"], dtype=pl.Categorical),
        pl.Series(["1.0", "0.0"]),
        pl.Series(["TRUE", "FALSE"]),
        pl.Series(["1 ", " 0"]),
        pl.Series(["positive", "negative"]),
    ],
    ids=str,
)
def test_labels_of_every_type(labels, tmp_path, settings_of, notes):
    pl.DataFrame({"sentence": ["a", "b"], "label": labels}).write_parquet(tmp_path / "train.parquet")
    settings = settings_of("SST-2")
    assert load_split(settings, task_from(settings), "train", notes)["label"].to_list() == ["1", "0"]
    table = check_data(settings, task_from(settings), notes).tables[0]
    assert [one.count for one in table.labels.known] == [1, 1] and table.labels.outside.count == 0


@pytest.mark.parametrize("labels", [[[1], [0]], [{"a": 1}, {"a": 0}], [datetime(2020, 1, 1), datetime(2020, 1, 2)]])
def test_a_column_that_holds_no_labels(labels, tmp_path, settings_of, notes):
    frame = pl.DataFrame({"sentence": ["a", "b"], "label": labels})
    frame.write_parquet(tmp_path / "train.parquet")
    settings = settings_of("SST-2")
    with raising(DataError, key="label", row=1, what=str(frame["label"].dtype)):
        load_split(settings, task_from(settings), "train", notes)


@pytest.mark.parametrize(
    ("stored", "names", "expected"),
    [
        (["positive", "negative"], ("negative", "positive"), ["1", "0", "1"]),
        (["Positive", " NEGATIVE"], ("negative", "positive"), ["1", "0", "1"]),
        (["1", "0"], ("negative", "positive"), ["1", "0", "1"]),
        (["bad", "good"], ("negative", "positive"), ["0", "1", "0"]),
        (["mixed", "positive"], ("negative", "positive"), None),
    ],
)
def test_class_names_in_another_order_or_case(tmp_path, settings_of, notes, stored, names, expected):
    features = {"info": {"features": {"label": {"names": stored, "_type": "ClassLabel"}}}}
    frame = pl.DataFrame({"sentence": ["a", "b", "c"], "label": [0, 1, 0]})
    frame.write_parquet(tmp_path / "train.parquet", metadata={"huggingface": json.dumps(features)})
    settings = settings_of("SST-2", names=names)
    if expected is None:
        with pytest.raises(DataError, match="'mixed'"):
            load_split(settings, task_from(settings), "train", notes)
        return
    assert load_split(settings, task_from(settings), "train", notes)["label"].to_list() == expected
    assert any("0 = " in info for info in notes.infos)


@pytest.mark.parametrize(
    ("quoting", "form", "expected"),
    [
        ("auto", "tsv", ["x", 'say "no"']),
        ("none", "tsv", ['"x"', '"say ""no"""']),
        ("csv", "tsv", ["x", 'say "no"']),
        ("auto", "csv", ["x", 'say "no"']),
        ("none", "csv", ['"x"', '"say ""no"""']),
    ],
)
def test_a_setting_overrules_the_quoting_that_is_detected(tmp_path, settings_of, notes, quoting, form, expected):
    between = {"tsv": "\t", "csv": "|"}[form]
    (tmp_path / f"train.{form}").write_text('sentence|label\n"x"|1\n"say ""no"""|0\n'.replace("|", between))
    settings = settings_of("SST-2", quoting=quoting, separator="|").model_copy(update={"name": "mine"})
    assert load_split(settings, task_from(settings), "train", notes)["sentence"].to_list() == expected
    assert any("look quoted" in info for info in notes.infos) == (quoting == "none" and form == "tsv")


def test_an_index_of_another_type(tmp_path, settings_of, notes):
    uuid = UUID("12345678-1234-5678-1234-567812345678")
    settings = settings_of("SST-2")
    for index in (uuid.bytes, {"oid": "x"}):
        frame = pl.DataFrame({"id": [index, index], "sentence": ["a", "b"], "label": [1, 0]})
        frame.write_parquet(tmp_path / "train.parquet")
        found = load_split(settings, task_from(settings), "train", notes)["index"].to_list()
        assert found == ["0", "1"], "training needs no index"
    with raising(DataError, key="id"):
        list(stream_table(tmp_path / "train.parquet", settings, task_from(settings), notes))
    frame.with_columns(id=pl.lit(uuid.bytes)).write_parquet(tmp_path / "train.parquet")
    found = pl.concat(stream_table(tmp_path / "train.parquet", settings, task_from(settings), notes))
    assert found["index"].to_list() == [str(uuid)] * 2


CLASSES = Task("nli", "pair", ("e", "n"), ("yes", "maybe"), metric="mcc", more_metrics=("f1", "accuracy"), positive="e")
SCORES = Task("stsb", "single", (), score_range=(0.0, 5.0), metric="pearson", more_metrics=("spearman",))
SETS = Task("topics", "single", ("a", "b"), metric="micro_f1", multi_label=True)


@pytest.mark.parametrize("task", [CLASSES, SCORES, SETS], ids=lambda task: task.name)
def test_settings_of_a_task_make_that_task(task):
    assert task_from(splits.settings_of(task)) == task
    settings = [field.name for field in fields(Task) if field.name != "thresholds"]  # those are a student's own
    assert all(any(getattr(one, name) for one in (CLASSES, SCORES, SETS)) for name in settings)
