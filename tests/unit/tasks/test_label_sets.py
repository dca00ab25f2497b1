import polars as pl
import pytest
from raising import raising

from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tasks.check import check_data
from kdcli.tasks.labels import encode_labels
from kdcli.tasks.split import load_split, task_from

TEXTS = ["one text", "two texts", "three texts", "four texts"]
SETS = [["a", "b"], [], ["c"], ["b"]]


def settings(folder, **more):
    how = {"labels": ("a", "b", "c"), "multi_label": True, "metric": "micro_f1", "text_columns": ("text",), **more}
    return TaskSettings(data_dir=str(folder), **how)


def columns(values=("0", "1")):
    return {label: [values[label in one] for one in SETS] for label in "abc"}


def put(folder, form, table):
    if form == "txt":
        rows = zip(table["text"], table["label"], strict=True)
        lines = [" ".join([*(f"__label__{one}" for one in labels), text]) for text, labels in rows]
        (folder / "train.txt").write_text("".join(f"{line}\n" for line in lines))
        return
    frame = pl.DataFrame(table)
    write = {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[form]
    write(folder / f"train.{form}")


WAYS = {
    "texts": ("csv", {"label": ["a|b", "", "c", " b "]}, {}),
    "texts in parquet": ("parquet", {"label": ["b|a", "", "c", "b"]}, {}),
    "numbers": ("csv", {"label": ["0|1", "", "2", "1"]}, {}),
    "lines of fastText": ("txt", {"label": SETS}, {"text_columns": ()}),
    "lists in jsonl": ("jsonl", {"label": SETS}, {}),
    "lists in parquet": ("parquet", {"label": SETS}, {}),
    "lists of numbers": ("parquet", {"label": [[0, 1], [], [2], [1]]}, {}),
    "columns of the labels' names": ("csv", columns(), {}),
    "columns of booleans": ("parquet", columns((False, True)), {}),
    "columns of floats": ("jsonl", columns((0.0, 1.0)), {}),
    "columns of other names": ("csv", {f"is_{one}": values for one, values in columns().items()}, {
        "label_columns": ("is_a", "is_b", "is_c")}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_say_the_same(way, tmp_path, notes):
    form, table, more = WAYS[way]
    put(tmp_path, form, {"text": TEXTS, **table})
    own = settings(tmp_path, **more)
    task = task_from(own)
    rows = load_split(own, task, "train", notes)
    assert rows["sentence"].to_list() == TEXTS
    matrix = encode_labels(rows["label"], task, file="train")
    assert matrix.tolist() == [[label in one for label in "abc"] for one in SETS]


WRONG = {
    "another label": ({"label": ["a", "a|x", "b", ""]}, 3, "label"),
    "another value": ({**columns(), "b": ["0", "yes", "1", "0"]}, 3, "b"),
    "a column is missing": ({"a": ["0"] * 4, "b": ["1"] * 4}, None, "c"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_set_is_an_error(what, tmp_path, notes):
    table, row, key = WRONG[what]
    put(tmp_path, "csv", {"text": TEXTS, **table})
    own = settings(tmp_path, label_columns=("a", "b", "c")) if key == "c" else settings(tmp_path)
    with raising(DataError, key=key, row=row):
        load_split(own, task_from(own), "train", notes)


def test_hidden_labels_are_none_and_every_row_alike_is_nothing_to_learn(tmp_path, notes):
    hidden = {**columns(), "a": ["-1", "0", "0", "0"], "b": ["-1", "0", "0", "1"]}
    pl.DataFrame({"text": TEXTS, **hidden}).write_csv(tmp_path / "test.csv")
    own = settings(tmp_path)
    assert load_split(own, task_from(own), "test", notes)["label"].to_list() == [None, "", "c", "b"]
    put(tmp_path, "csv", {"text": TEXTS, "label": ["a|b"] * 4})
    with pytest.raises(DataError):
        load_split(own, task_from(own), "train", notes)


def test_a_label_that_never_occurs_is_a_warning_and_a_row_without_any_is_allowed(tmp_path, notes):
    put(tmp_path, "csv", {"text": TEXTS, "label": ["a", "", "a", "b"]})
    pl.DataFrame({"text": ["five"], "label": ["a|b"]}).write_csv(tmp_path / "dev.csv")
    own = settings(tmp_path)
    assert len(load_split(own, task_from(own), "train", notes)) == 4
    report = check_data(own, task_from(own), notes)
    assert report.fit
    assert [one.count for one in report.tables[0].labels.known] == [2, 1, 0]
    assert report.tables[0].labels.known[0].share == 0.5
    assert report.tables[0].labels.missing.count == 0
    assert (report.tables[0].labels.none.count, report.tables[0].labels.none.first_row) == (1, 3)
    assert sum("'c'" in problem.what for problem in report.problems) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "accuracy"},
        {"labels": (), "metric": "micro_f1"},
        {"labels": ("a|b", "c")},
        {"label_columns": ("a",)},
        {"multi_label": False},
    ],
)
def test_settings_that_do_not_go_together(wrong, tmp_path):
    with pytest.raises(ValueError, match=r"multi.label|metric|labels"):
        settings(tmp_path, **wrong)
