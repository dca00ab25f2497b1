"""Row hashes, against the definition written out."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli.tables import hashing
from kdcli.tables.hashing import row_hashes

texts = st.lists(st.tuples(st.text(), st.text()), max_size=20)


def by_definition(*fields: str) -> int:
    message = b"".join(len(field.encode()).to_bytes(8, "little") + field.encode() for field in fields)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")


@given(rows=texts, cut=st.integers(1, 5))
def test_hashes_follow_the_definition_however_the_columns_are_cut(rows, cut):
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)] or [pa.array([], pa.string())] * 2
    expected = np.array([by_definition(*row) for row in rows], np.uint64)
    chunked = pa.chunked_array([columns[0][begin : begin + cut] for begin in range(0, len(rows), cut)], pa.string())
    hashes = row_hashes([chunked, columns[1]])
    assert hashes.dtype == np.uint64
    np.testing.assert_array_equal(hashes, expected)
    np.testing.assert_array_equal(row_hashes(columns[:1]), [by_definition(row[0]) for row in rows])


def test_rows_beyond_one_batch_are_hashed_too(monkeypatch):
    monkeypatch.setattr(hashing, "_ROWS", 3)
    words = [f"word {number}" for number in range(10)]
    assert row_hashes([pa.array(words)]).tolist() == [by_definition(word) for word in words]


def test_a_slice_hashes_as_its_rows_do():
    words = pa.array(["a", "b", "cc", "ddd"])
    assert row_hashes([words[1:3]]).tolist() == row_hashes([words]).tolist()[1:3]


def test_fields_do_not_run_into_each_other():
    first = row_hashes([pa.array(["a"]), pa.array(["bc"])])
    second = row_hashes([pa.array(["ab"]), pa.array(["c"])])
    assert first[0] != second[0]


def test_a_null_has_no_hash():
    with pytest.raises(ValueError, match="null"):
        row_hashes([pa.array(["a", None])])
