"""Tables of several files, and files of neighbours: shards of the Hub, Spark's folders, fastText's lines."""

import polars as pl
import pytest
from raising import raising

from kdcli.api import QuietReporter
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tables.read import ROW_NUMBER, files_of, read_table
from kdcli.tasks.split import load_split, split_files, task_from

WHOLE = pl.DataFrame({"sentence": [f"text {number}" for number in range(7)], "label": ["0", "1"] * 3 + ["1"]})


def shards(folder, split="train", count=3):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        part = WHOLE[len(WHOLE) * number // count : len(WHOLE) * (number + 1) // count]
        part.write_parquet(folder / f"{split}-{number:05d}-of-{count:05d}.parquet")


def settings(folder):
    return TaskSettings(name="toy", labels=("0", "1"), data_dir=str(folder))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shards_of_a_split_are_one_table(tmp_path, count):
    shards(tmp_path, "train", count)
    shards(tmp_path, "validation", count)
    own = settings(tmp_path)
    for split in ("train", "dev"):
        assert len(split_files(own, split)) == 1
        table = load_split(own, task_from(own), split, QuietReporter())
        assert table.select("sentence", "label").equals(WHOLE)
        assert table["index"].to_list() == list("0123456")
    frame = read_table(tmp_path / f"train-*-of-0000{count}.parquet").frame()
    assert frame[ROW_NUMBER].to_list() == list(range(1, 8))
    first = tmp_path / f"train-00000-of-0000{count}.parquet"
    assert len(read_table(first).frame()) == 7 // count, "a file that is named is that file alone"


def test_a_missing_shard_and_one_of_other_columns_are_named(tmp_path):
    shards(tmp_path)
    middle = tmp_path / "train-00001-of-00003.parquet"
    pl.DataFrame({"sentence": ["x"], "label": [1.5]}).write_parquet(middle)
    with raising(DataError, file=middle):
        read_table(tmp_path / "train-*-of-00003.parquet")
    middle.unlink()
    with raising(DataError, file=middle):
        load_split(settings(tmp_path), task_from(settings(tmp_path)), "train", QuietReporter())


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_folder_of_part_files_is_one_table(tmp_path, form):
    folder = tmp_path / f"train.{form}"
    folder.mkdir()
    write = {"csv": pl.DataFrame.write_csv, "parquet": pl.DataFrame.write_parquet, "jsonl": pl.DataFrame.write_ndjson}
    for number, part in enumerate((WHOLE[:4], WHOLE[4:])):
        write[form](part, folder / f"part-0000{number}-c000.{form}")
    for name in ("_SUCCESS", f"part-00002-c000.{form}"):
        (folder / name).touch()
    assert [path.name[:10] for path in files_of(folder)] == ["part-00000", "part-00001"]
    own = settings(tmp_path)
    table = load_split(own, task_from(own), "train", QuietReporter())
    assert table.select("sentence", "label").equals(WHOLE)
    if form != "parquet":
        last = folder / f"part-00001-c000.{form}"
        last.write_bytes(last.read_bytes() + b'{"a,b,c,d\n')
        with raising(DataError, row=5 if form == "csv" else 4, file=last):
            read_table(folder).frame()
    (tmp_path / "dev.csv").mkdir()
    with pytest.raises(DataError):
        read_table(tmp_path / "dev.csv")


def test_lines_of_fasttext_are_texts_with_labels(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("__label__pos a gripping film\n__label__neg a dull mess\n__label__pos , lovely\n")
    own = settings(tmp_path).model_copy(update={"labels": ("neg", "pos")})
    table = load_split(own, task_from(own), "train", QuietReporter())
    assert table["sentence"].to_list() == ["a gripping film", "a dull mess", ", lovely"]
    assert table["label"].to_list() == ["pos", "neg", "pos"]
    path.write_text("__label__pos a film\n__label__neg __label__pos two labels\n")
    with raising(DataError, row=2):
        load_split(own, task_from(own), "train", QuietReporter())
    path.write_text("__label__pos a film\n__label__ no name\n")
    with raising(DataError, row=2):
        read_table(path).frame()
    reader = read_table(path, bad_rows="skip")
    assert (len(reader.frame()), reader.skipped) == (1, 1)
