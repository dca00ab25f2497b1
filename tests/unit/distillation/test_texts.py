import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from notes import Notes

from kdcli.api import Task
from kdcli.config.schema import TaskSettings
from kdcli.distillation.texts import Columns, find_columns, find_files, first_texts, held_out, take_texts
from kdcli.errors import DataError, MissingError

TASK = Task("films", "single", ("negative", "positive"))
TEXTS = [f"a film of number {number}" for number in range(200)]
TABLE = {
    "id": [f"R-{number}" for number in range(5)],
    "date": ["2026-01-02"] * 5,
    "stars": ["1", "5", "3", "2", "4"],
    "city": ["Rome", "Oslo", "Rome", "Bonn", "Oslo"],
    "words": ["a good film", "a dull one", "not bad at all", "what a film, what a night", "never again, please"],
}


def write(path, columns):
    pl.DataFrame(columns).write_csv(path)
    return path


def settings(columns=("sentence",), label=""):
    return TaskSettings(labels=("negative", "positive"), text_columns=columns, label_column=label)


def take(tmp_path, files, *, limit=0, label="", notes=None):
    asked = settings(("text",), label)
    taken = take_texts(files, asked, TASK, limit=limit, seed=1, reporter=notes or Notes())
    counts = taken.divide(len(taken.rows), TASK, tmp_path / "out")
    return counts, {path.stem: pl.read_parquet(path) for path in (tmp_path / "out").glob("*.parquet")}


def test_the_only_column_of_texts_is_found(tmp_path):
    assert find_columns(write(tmp_path / "a.csv", TABLE)) == Columns(("words",), None)


def test_among_several_the_usual_name_decides(tmp_path):
    table = write(tmp_path / "a.csv", {**TABLE, "Review": TABLE["words"][::-1], "label": list("01010")})
    assert find_columns(table) == Columns(("Review",), "label")
    assert find_columns(table, label_col="none") == Columns(("Review",), None)
    assert find_columns(table, text_col="words", text2_col="Review") == Columns(("words", "Review"), "label")
    assert find_columns(table, labels=("Rome", "Oslo", "Bonn", "Bern")) == Columns(("Review",), "city")
    assert find_columns(table, labels=("Rome", "Oslo")) == Columns(("Review",), "label")
    assert find_columns(table, labels=("Rome", "Oslo", "Bonn"), label_col="none") == Columns(("Review",), None)


def test_a_doubt_is_an_error_that_shows_the_columns(tmp_path):
    table = write(tmp_path / "a.csv", {**TABLE, "more": TABLE["words"][::-1]})
    with pytest.raises(DataError, match="2 columns may hold the texts: words, more") as caught:
        find_columns(table)
    assert "words (a good film)" in caught.value.hint and "--text-col" in caught.value.hint
    with pytest.raises(DataError, match="no column 'text'") as caught:
        find_columns(table, text_col="text")
    assert caught.value.key == "text"


def test_numbers_are_no_texts(tmp_path):
    numbers = {"a": ["1", "2.5"], "b": ["2026-01-02", "2026-02-03"]}
    with pytest.raises(DataError, match="no column holds texts"):
        find_columns(write(tmp_path / "a.csv", numbers))
    with pytest.raises(DataError, match="this column holds no texts") as caught:
        find_columns(write(tmp_path / "a.csv", numbers), text_col="a")
    assert caught.value.key == "a"


def test_single_words_are_texts_where_there_is_nothing_else(tmp_path):
    assert find_columns(write(tmp_path / "a.csv", {"n": ["1", "2"], "w": ["good", "bad"]})).texts == ("w",)


def test_files_folders_and_patterns(tmp_path):
    for name in ("b.txt", "a.csv", "notes.md"):
        (tmp_path / name).write_text("text\nx y\n")
    both = [tmp_path / "a.csv", tmp_path / "b.txt"]
    assert find_files([str(tmp_path)]) == both
    assert find_files([f"{tmp_path}/*.txt", str(tmp_path / "b.txt")]) == [tmp_path / "b.txt"]
    (tmp_path / "empty").mkdir()
    for name, error in (("empty", DataError), ("*.json", DataError), ("none.csv", MissingError)):
        with pytest.raises(error):
            find_files([str(tmp_path / name)])


def test_copies_never_stand_on_two_sides_and_everything_is_counted(tmp_path):
    copies = [*TEXTS, *(text.upper() for text in TEXTS[:50]), *(f"  {text} " for text in TEXTS[:30]), "", "  "]
    notes = Notes()
    counts, sides = take(tmp_path, [write(tmp_path / "a.csv", {"text": copies, "n": [1] * len(copies)})], notes=notes)
    assert (counts.read, counts.duplicates, counts.beyond, counts.labelled) == (280, 80, 0, False)
    assert (counts.dev, counts.test, counts.train) == (20, 0, 180)
    every = [text.strip().lower() for side in sides.values() for text in side["sentence"]]
    assert sorted(every) == sorted(TEXTS)
    assert any("2 rows with an empty text are left out" in warning for warning in notes.warnings)


def test_the_texts_that_are_taken_do_not_depend_on_their_order_and_files(tmp_path):
    first, _ = [write(tmp_path / "a.csv", {"text": TEXTS, "n": [1] * 200})], None
    counts, sides = take(tmp_path, first, limit=40)
    assert (counts.beyond, counts.dev + counts.train) == (160, 40)
    parts = [
        write(tmp_path / "b.csv", {"text": TEXTS[:70:-1], "n": [1] * len(TEXTS[:70:-1])}),
        write(tmp_path / "c.csv", {"text": TEXTS[:71], "n": [1] * 71}),
    ]
    assert take(tmp_path, parts, limit=40)[1]["train"].equals(sides["train"])
    smaller = take(tmp_path, parts, limit=20)[1]
    assert set(smaller["train"]["sentence"]) < {text for side in sides.values() for text in side["sentence"]}


def test_each_side_has_its_share_of_every_label(tmp_path):
    labels = ["negative"] * 20 + ["positive"] * 180
    table = write(tmp_path / "a.csv", {"text": TEXTS, "label": labels})
    counts, sides = take(tmp_path, [table], label="label")
    assert counts.labelled
    assert {name: side["label"].value_counts().sort("label")["count"].to_list() for name, side in sides.items()} == {
        "dev": [2, 18],
        "train": [18, 162],
    }
    gold = dict(zip(TEXTS, labels, strict=True))
    assert all(gold[text] == label for side in sides.values() for text, label in side.iter_rows())


def test_rows_without_a_label_are_left_out_or_labels_are_not_used(tmp_path):
    few = ["negative", "positive"] * 95 + [""] * 10
    counts, _ = take(tmp_path, [write(tmp_path / "a.csv", {"text": TEXTS, "label": few})], label="label")
    assert counts.labelled and counts.train + counts.dev == 190
    most = ["negative"] * 20 + [""] * 180
    counts, sides = take(tmp_path, [write(tmp_path / "b.csv", {"text": TEXTS, "label": most})], label="label")
    assert not counts.labelled and counts.train + counts.dev == 200 and sides["dev"].columns == ["sentence"]


def test_a_label_that_the_teacher_does_not_know_is_an_error_with_its_row(tmp_path):
    labels = ["negative", "positive"] * 99 + ["neutral", "positive"]
    with pytest.raises(DataError, match="neutral") as caught:
        take(tmp_path, [write(tmp_path / "a.csv", {"text": TEXTS, "label": labels})], label="label")
    assert caught.value.row == 200


def test_too_few_texts_are_an_error(tmp_path):
    with pytest.raises(DataError, match="200 texts, of which 1 are different"):
        take(tmp_path, [write(tmp_path / "a.csv", {"text": ["all equal"] * 200, "n": [1] * 200})])


def test_a_third_part_is_held_out_of_many_texts():
    assert [held_out(texts) for texts in (10, 4_999, 5_000, 64_720, 10**6)] == [
        (1, 0),
        (499, 0),
        (500, 500),
        (2_000, 6_472),
        (2_000, 10_000),
    ]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50), st.integers(0, 3))
def test_hashes_are_mixed_as_splitmix64_does(hashes, seed):
    from kdcli.distillation.texts import _mixed

    def one(value):
        mask = 2**64 - 1
        value = (value + (seed + 1) * 0x9E3779B97F4A7C15) & mask
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    assert _mixed(np.array(hashes, np.uint64), np.uint64(seed)).tolist() == list(map(one, hashes))


def test_a_dataset_of_the_hub_is_its_training_tables(tmp_path, monkeypatch):
    for name in ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pl.DataFrame({"text": TEXTS[:3]}).write_parquet(tmp_path / name)
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: asked.update(how) or str(tmp_path))
    assert find_files(["some/reviews"], offline=True) == [tmp_path / "data/train-00000-of-00001.parquet"]
    assert asked["repo_type"] == "dataset" and asked["local_files_only"]
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: 1 / 0)
    with pytest.raises(MissingError, match="some/reviews"):
        find_files(["some/reviews"])


def test_first_texts_leave_out_empty_ones_and_need_one(tmp_path):
    table = write(tmp_path / "a.csv", {"text": ["", "a film", " ", "another"]})
    assert first_texts(table, settings(("text",)), TASK, 5)["sentence"].to_list() == ["a film", "another"]
    with pytest.raises(DataError, match="no texts"):
        first_texts(write(tmp_path / "b.csv", {"text": ["", " "]}), settings(("text",)), TASK, 5)
