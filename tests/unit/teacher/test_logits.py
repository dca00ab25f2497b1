import json
from hashlib import blake2b

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, strategies as st
from made_teacher import Hostile
from raising import raising
from safetensors.numpy import save_file

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.tables.text_hash import text_hash
from kdcli.teacher.external import LEAST_PROBABILITY, read_external
from kdcli.teacher.logits import Logits, read_logits, write_logits

FILMS = Task("films", "single", ("0", "1"), names=("negative", "positive"))
STARS = Task("stars", "single", (), score_range=(0, 5), metric="pearson")
VALUES = np.array([[1.5, -2.25], [0.1, 3.3], [-7.0, 1e-8]], np.float32)
HASHES = np.array([2**64 - 1, 0, 77], np.uint64)
TEXTS = ["good ", "bad", "good"]
COLUMNS = [pl.Series(TEXTS)]


@pytest.fixture
def path(tmp_path):
    pieces = [(HASHES, VALUES, None)]
    write_logits(tmp_path / "logits.safetensors", pieces, len(VALUES), {"labels": ["0", "1"], "teacher": "t"})
    return tmp_path / "logits.safetensors"


@pytest.fixture
def transfer(tmp_path):
    (tmp_path / "transfer.tsv").write_text("sentence\tsource\tlabel\n" + "".join(f"{t}\tlite\t\n" for t in TEXTS))
    return tmp_path / "transfer.tsv"


@pytest.fixture
def external(tmp_path, transfer, notes):
    """Read a file of other tools."""

    def read(name, task=FILMS):
        return read_external(tmp_path / name, transfer=transfer, task=task, reporter=notes)

    return read


@pytest.fixture
def read_array(tmp_path, notes):
    """Return the logits of an array beside a transfer set of its rows."""

    def read(array, task=FILMS, **more):
        (tmp_path / "t.txt").write_text("".join(f"text {row}\n" for row in range(len(array))))
        np.save(tmp_path / "a.npy", np.array(array, np.float32))
        how = {"transfer": tmp_path / "t.txt", "task": task, "reporter": notes, **more}
        return read_external(tmp_path / "a.npy", **how).logits

    return read


def numbered(classes):
    return Task("films", "single", tuple(map(str, range(classes))))


@given(st.lists(st.text(max_size=3), max_size=20, unique=True), st.lists(st.text(max_size=3), max_size=20))
def test_rows_are_found_whatever_their_order(texts, asked):
    place = {text: row for row, text in enumerate(texts)}
    hashes = text_hash([pl.Series(texts, dtype=pl.String)])
    found = Logits(np.zeros((len(texts), 1), np.float32), hashes, {})
    rows = found.rows([pl.Series(asked, dtype=pl.String)], 5)
    assert rows.tolist() == [place.get(text, -1) for text in asked]


def test_files_of_the_first_format_are_read_and_others_are_no_logits(tmp_path):
    hashes = [blake2b(len(text).to_bytes(8, "little") + text.encode(), digest_size=8).digest() for text in TEXTS]
    tensors = {"logits": VALUES, "row_hash": np.frombuffer(b"".join(hashes), "<u8")}
    metadata = {"kd": json.dumps({"format": "kd.logits/1", "labels": ["0", "1"]})}
    save_file(tensors, tmp_path / "old.safetensors", metadata=metadata)
    assert read_logits(tmp_path / "old.safetensors", FILMS).rows(COLUMNS, 0).tolist() == [0, 1, 2]
    write_logits(tmp_path / "e.safetensors", [(HASHES[:0], VALUES[:0], None)], 0, {"labels": ["0", "1"]})
    found = read_logits(tmp_path / "e.safetensors", FILMS)
    assert found.logits.shape == (0, 2)
    assert found.rows(COLUMNS, 0).tolist() == [-1, -1, -1]
    save_file({"weight": VALUES.astype(np.float16)}, tmp_path / "model.safetensors")
    (tmp_path / "table.safetensors").write_bytes(b"sentence\tlabel\n" * 100)
    said = {"none": "no such file", "model": "not a logits file", "table": "cut short, or is not a safetensors"}
    for name, says in said.items():
        with pytest.raises(DataError, match=says):
            read_logits(tmp_path / f"{name}.safetensors", FILMS)


@pytest.mark.parametrize(
    ("task", "what"),
    [
        (Task("films", "single", ("1", "0")), "labels 0, 1, and the task has labels 1, 0"),
        (Task("films", "single", ("0", "1", "2")), "the task has labels 0, 1, 2"),
        (STARS, "the task has a score"),
    ],
)
def test_logits_for_other_labels(path, task, what):
    with pytest.raises(DataError, match=what):
        read_logits(path, task)


def test_an_array_is_read_by_position_and_probabilities_become_logarithms(tmp_path, notes, external):
    np.save(tmp_path / "l.npy", VALUES.astype(np.float64))
    found = external("l.npy")
    assert np.array_equal(found.logits, VALUES) and found.logits.dtype == np.float32
    assert found.hashes is None and found.rows([COLUMNS[0][:2]], 1).tolist() == [1, 2]
    assert len(notes.warnings) == 1 and "3 rows" in notes.warnings[0]
    np.save(tmp_path / "l.npy", np.array([0.5, 0.25, 0.25], np.float32))
    found = external("l.npy", STARS)
    assert found.logits.tolist() == [[0.5], [0.25], [0.25]]
    assert not any("probabilities" in warning for warning in notes.warnings)
    probabilities = np.array([[0.25, 0.75], [1.0, 0.0], [1 / 3, 2 / 3]])
    np.save(tmp_path / "p.npy", probabilities)
    found = external("p.npy")
    assert any("probabilities" in warning for warning in notes.warnings)
    softmax = np.exp(found.logits) / np.exp(found.logits).sum(1, keepdims=True)
    assert np.abs(softmax - probabilities).max() < 2e-7
    assert found.logits[1, 1] == pytest.approx(np.log(LEAST_PROBABILITY))


def test_pickled_code_is_refused(tmp_path, external):
    hostile = Hostile(tmp_path / "ran")
    torch.save(hostile, tmp_path / "new.pt")
    torch.save(hostile, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.save(tmp_path / "object.npy", np.array([hostile, hostile], object), allow_pickle=True)
    for name in ("new.pt", "old.pt", "object.npy"):
        with pytest.raises(DataError, match=r"refused|cannot be read"):
            external(name)
    assert not (tmp_path / "ran").exists()


NEEDS = r"the task needs float \[rows, 2\]"


@pytest.mark.parametrize(
    ("values", "says", "row"),
    [
        (VALUES[:2], "2 rows of logits, and the transfer set has 3", None),
        (np.where(VALUES == -7, np.nan, VALUES), "not finite", 3),
        *((values, NEEDS, None) for values in (VALUES[:, :1], VALUES[:, [0, 1, 1]], VALUES.ravel(), VALUES > 0)),
        ("sentence,logits_0,logits_1\nbad,1,2\ngood,1,high\n", "not a number: 'high'", 3),
        ("logits_0,logits_1\n1,2\n3,\n5,6\n", "is missing", 3),
        ("sentence,score\n1,1\n", "no columns with the logits", None),
        ("logits_0,logits_1,logits_2\n1,1,1\n", "more logits_... columns", None),
    ],
)
def test_what_is_no_table_of_finite_logits(tmp_path, values, says, row, external):
    if isinstance(values, str):
        (tmp_path / "l.csv").write_text(values)
    else:
        np.save(tmp_path / "l.npy", values)
    with raising(DataError, says, row=row):
        external("l.csv" if isinstance(values, str) else "l.npy")


def test_tables_by_text_and_by_label(tmp_path, notes, external):
    (tmp_path / "l.csv").write_text('sentence,Positive,id,negative\n"good ",0.75,x,-1\nbad,-2.5,y,3\n')
    found = external("l.csv")
    assert found.logits.tolist() == [[-1, 0.75], [3, -2.5]]
    assert notes.warnings == []
    table = pl.DataFrame(
        {"logits_1": VALUES[:, 1], "sentence": TEXTS, "logits_0": VALUES[:, 0], "label": ["1", "0", "1"]}
    )
    table.write_parquet(tmp_path / "l.parquet")
    found = external("l.parquet")
    assert np.array_equal(found.logits, VALUES)
    assert found.rows([pl.Series(["bad", "good", "good ", "other"])], 0).tolist() == [1, 2, 0, -1]
    assert notes.warnings == []


@pytest.mark.parametrize("values", [[[-0.1, 1.1], [0.5, 0.5]], [[2.0, -1.0], [0.3, 0.7]]])
def test_logits_are_not_taken_for_probabilities(read_array, values):
    assert np.array_equal(read_array(values), np.array(values, np.float32))


@pytest.mark.parametrize("values", ["logits", "probabilities", "percentages"])
def test_what_a_file_holds_may_be_said(read_array, values):
    shares = np.array([[0.2, 0.8], [0.5, 0.9]], np.float32)
    stored = shares * (100 if values == "percentages" else 1)
    if values != "percentages":
        with raising(DataError, key="join.values"):
            read_array(stored)
    expected = shares if values == "logits" else np.log(shares)
    np.testing.assert_allclose(read_array(stored, values=values), expected, rtol=1e-6)


@pytest.mark.parametrize("decimals", [1, 2, 3, 7])
@pytest.mark.parametrize("classes", [2, 6])
def test_probabilities_may_be_rounded(read_array, decimals, classes):
    exact = np.random.default_rng(decimals).dirichlet(np.full(classes, 0.3), 300)
    rounded = exact.round(decimals).astype(np.float32)
    floor = max(10.0**-decimals / 2, LEAST_PROBABILITY)
    expected = np.log(np.maximum(rounded, floor))
    np.testing.assert_allclose(read_array(rounded, numbered(classes)), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("values", [VALUES, np.asfortranarray(VALUES)], ids=["rows", "columns"])
def test_pieces_give_the_file_that_safetensors_writes(tmp_path, size, values):
    states = np.arange(3.0 * size, dtype=np.float16).reshape(3, size) if size else None
    pieces = [(HASHES[rows], values[rows], states if states is None else states[rows]) for rows in ([0], [], [1, 2])]
    write_logits(tmp_path / "ours.safetensors", pieces, 3, {"labels": ["ü", '"'], "teacher": "t"})
    ours = json.dumps({"format": "kd.logits/2", "labels": ["ü", '"'], "teacher": "t"})
    arrays = {"logits": VALUES, "row_hash": HASHES} | ({} if states is None else {"representation": states})
    save_file(arrays, tmp_path / "theirs.safetensors", metadata={"kd": ours})
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("labels", "header", "order"),
    [
        (["1", "0"], "probability_0,probability_1", [1, 0]),
        (["1", "0"], "probability_1,probability_0", [0, 1]),
        (["1", "0"], "logits_0,logits_1", [0, 1]),
        (["1", "0"], "1,0", [0, 1]),
        (["1", "0"], "prob_0,prob_1", None),
        (["bad", "good"], "probability_good,probability_bad", [1, 0]),
        (["-1", "1"], "1,-1", [1, 0]),
        (["us", "US"], "US,us", [1, 0]),
        (["A", "A-"], "A-,A", [1, 0]),
        ([*"abcdefghijkl"], "0,1,10,11,2,3,4,5,6,7,8,9", [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3]),
        ([*"abc"], "class2,class0,class1", [1, 2, 0]),
        ([*"abc"], "class0,class1,class2,class3", None),
        ([*"abc"], "class0,class1,other", "position"),
    ],
)
def test_columns_go_by_label_or_by_number(tmp_path, notes, labels, header, order):
    task = Task("films", "single", tuple(labels))
    (tmp_path / "t.txt").write_text("a\n")
    names = header.split(",")
    (tmp_path / "l.csv").write_text(f"{header}\n{','.join(str(number + 2) for number in range(len(names)))}\n")

    def read():
        return read_external(tmp_path / "l.csv", transfer=tmp_path / "t.txt", task=task, reporter=notes).logits

    if order is None:
        with pytest.raises(DataError):
            read()
        return
    order = range(len(names)) if order == "position" else order
    assert (read()[0] - 2).tolist() == list(order)


@pytest.mark.parametrize("values", ["auto", "percentages"])
@pytest.mark.parametrize("classes", [2, 3])
def test_one_hot_rows_stay_one_hot(read_array, values, classes):
    rows = np.eye(classes, dtype=np.float32)
    odds = np.exp(read_array(rows * (100 if values == "percentages" else 1), numbered(classes), values=values))
    np.testing.assert_allclose(odds / odds.sum(1, keepdims=True), rows, atol=1e-5)


@pytest.mark.parametrize("rows", [[[1, 1], [0, 0]], [[1, 0]] * 1000 + [[0.62, 0.9]]])
def test_rows_that_are_no_probabilities_are_found_wherever_they_are(read_array, rows):
    with raising(DataError, key="join.values"):
        read_array(rows)
