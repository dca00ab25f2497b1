import hashlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64

from kdcli.tables.text_hash import text_hash, text_hash_v1

texts = st.lists(st.tuples(st.text(), st.text()), max_size=20)


def by_definition(*fields: str) -> int:
    value = 0
    for field in fields:
        value = xxh3_64(field.encode(), seed=value).intdigest()
    return value


def by_definition_v1(*fields: str) -> int:
    message = b"".join(len(field.encode()).to_bytes(8, "little") + field.encode() for field in fields)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")


@pytest.mark.parametrize(("hash_rows", "expected"), [(text_hash, by_definition), (text_hash_v1, by_definition_v1)])
@given(rows=texts)
def test_hashes_follow_the_definition(hash_rows, expected, rows):
    columns = [pl.Series(column, dtype=pl.String) for column in zip(*rows, strict=True)]
    columns = columns or [pl.Series([], dtype=pl.String)] * 2
    hashes = hash_rows(columns)
    assert hashes.dtype == np.uint64
    np.testing.assert_array_equal(hashes, np.array([expected(*row) for row in rows], np.uint64))
    np.testing.assert_array_equal(hash_rows(columns[:1]), np.array([expected(row[0]) for row in rows], np.uint64))


def test_a_known_hash():
    """The empty text's XXH3-64 and the digest of an earlier release, which stored files hold."""
    assert text_hash([pl.Series([""])]).tolist() == [0x2D06800538D394C2]
    assert text_hash_v1([pl.Series(["a"]), pl.Series(["bc"])]).tolist() == [16576754464128796102]
    for hash_rows in (text_hash, text_hash_v1):
        with pytest.raises(ValueError, match="null"):
            hash_rows([pl.Series(["a", None])])
