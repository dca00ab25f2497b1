from pathlib import Path

import polars as pl
import pytest

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.transfer import cleaning
from kdcli.transfer.cleaning import mix

SINGLE = Task("films", "single", ("0", "1"))
PAIR = Task("pairs", "pair", ("0", "1"))
ORIGINALS = [("a film", "original", "1"), ("a film", "original", "0"), ("dull", "original", None)]


def put(path: Path, rows: list[tuple[str | None, ...]], task: Task = SINGLE) -> Path:
    schema = dict.fromkeys((*task.columns, "source", "label"), pl.String)
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(path)
    return path


def made(source: str, *texts: str) -> list[tuple[str | None, ...]]:
    return [(text, source, None) for text in texts]


def rows_of(path: Path) -> list[tuple[str | None, ...]]:
    return pl.read_parquet(path).rows()


def test_originals_once_then_each_sets_texts_without_what_came_before(tmp_path):
    lite = put(tmp_path / "lite.parquet", [*ORIGINALS, *made("lite", "one", "two  words", "three")])
    heavy = put(tmp_path / "heavy.parquet", [*ORIGINALS, *made("heavy", "four", " two words", "one")])
    corpus = put(tmp_path / "corpus.parquet", [*ORIGINALS, *made("corpus", "four", "five", "three", "six")])
    result = mix(sets={"lite": lite, "heavy": heavy, "corpus": corpus}, task=SINGLE, output=tmp_path / "set.parquet")
    assert rows_of(tmp_path / "set.parquet") == [
        *ORIGINALS,
        *made("lite", "one", "two  words", "three"),
        *made("heavy", "four"),
        *made("corpus", "five", "six"),
    ]
    assert (result.rows, result.originals) == (9, 3)
    assert result.kept == {"lite": 3, "heavy": 1, "corpus": 2}
    assert result.dropped == {"lite": 0, "heavy": 2, "corpus": 2}


def test_copies_of_originals_that_a_set_has_kept_stay(tmp_path):
    lite = put(tmp_path / "lite.parquet", [*ORIGINALS, *made("lite", "one")])
    heavy = put(tmp_path / "heavy.parquet", [*ORIGINALS, *made("heavy", "a film", "one")])
    result = mix(sets={"lite": lite, "heavy": heavy}, task=SINGLE, output=tmp_path / "set.parquet")
    assert rows_of(tmp_path / "set.parquet")[3:] == [("one", "lite", None), ("a film", "heavy", None)]
    assert result.kept == {"lite": 1, "heavy": 1}


def test_pairs_are_equal_if_both_texts_are(tmp_path):
    originals = [("a", "b", "original", "1")]
    one = put(tmp_path / "one.parquet", [*originals, ("c", "d", "lite", None)], PAIR)
    two = put(tmp_path / "two.parquet", [*originals, ("d", "c", "corpus", None), ("c ", "d", "corpus", None)], PAIR)
    result = mix(sets={"lite": one, "corpus": two}, task=PAIR, output=tmp_path / "set.parquet")
    assert rows_of(tmp_path / "set.parquet") == [
        ("a", "b", "original", "1"),
        ("c", "d", "lite", None),
        ("d", "c", "corpus", None),
    ]
    assert (result.kept, result.dropped) == ({"lite": 1, "corpus": 1}, {"lite": 0, "corpus": 1})


def test_many_batches_keep_their_places(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "_ROWS", 1000)
    originals = [(f"o{i % 999}", "original", "1") for i in range(70_000)]
    lite = put(tmp_path / "lite.parquet", [*originals, *made("lite", *(f"t{i}" for i in range(70_000)))])
    texts = [f"t{i}" for i in range(0, 140_000, 2)]
    corpus = put(tmp_path / "corpus.parquet", [*originals, *made("corpus", *texts)])
    result = mix(sets={"lite": lite, "corpus": corpus}, task=SINGLE, output=tmp_path / "set.parquet")
    new = [text for text in texts if int(text[1:]) >= 70_000]
    expected = [*originals, *made("lite", *(f"t{i}" for i in range(70_000))), *made("corpus", *new)]
    assert rows_of(tmp_path / "set.parquet") == expected
    assert (result.kept["corpus"], result.dropped["corpus"]) == (35_000, 35_000)


def test_sets_without_originals_or_new_texts(tmp_path):
    lite = put(tmp_path / "lite.parquet", [])
    corpus = put(tmp_path / "corpus.parquet", made("corpus", "one"))
    assert mix(sets={"lite": lite, "corpus": corpus}, task=SINGLE, output=tmp_path / "set.parquet").rows == 1
    assert rows_of(tmp_path / "set.parquet") == [("one", "corpus", None)]


@pytest.mark.parametrize(
    ("originals", "what"),
    [
        (ORIGINALS[:2], "2 originals where the set of lite has 3"),
        ([*ORIGINALS[:2], ("dull ", "original", None)], "original number 3 is another text"),
        ([ORIGINALS[2], *ORIGINALS[:2]], "original number 1 is another text"),
    ],
)
def test_other_originals_are_an_error(tmp_path, originals, what):
    lite = put(tmp_path / "lite.parquet", [*ORIGINALS, *made("lite", "one")])
    corpus = put(tmp_path / "corpus.parquet", [*originals, *made("corpus", "two")])
    with pytest.raises(DataError, match=what) as error:
        mix(sets={"lite": lite, "corpus": corpus}, task=SINGLE, output=tmp_path / "set.parquet")
    assert error.value.file == str(corpus)
    assert not (tmp_path / "set.parquet").exists()


def test_a_table_that_is_no_transfer_set_is_an_error(tmp_path):
    lite = put(tmp_path / "lite.parquet", ORIGINALS)
    pl.DataFrame({"sentence": ["a film"], "label": ["1"]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError) as error:
        mix(sets={"lite": lite, "corpus": tmp_path / "b.parquet"}, task=SINGLE, output=tmp_path / "set.parquet")
    assert (error.value.file, error.value.key) == (str(tmp_path / "b.parquet"), "source")
    assert not (tmp_path / "set.parquet").exists()
