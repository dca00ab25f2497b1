import gzip
import struct

import numpy as np
import polars as pl
import pytest
from raising import raising

from kdcli.api import QuietReporter
from kdcli.errors import DataError
from kdcli.student import vectors
from kdcli.student.vectors import read_vectors, words_with_vectors

VECTORS = {
    "the": [0.25, -1.5, 3.0, 0.125],
    "film": [1.0, 2.0, -0.5, 0.0625],
    "Paris": [-0.75, 0.5, 8.0, 1e-3],
    "naïve": [0.5, 0.5, 0.5, -4.0],
}


def text(table, *, header=False, end="\n"):
    rows = [f"{word} {' '.join(map(str, values))}" for word, values in table]
    return (f"{len(rows)} {len(table[0][1])}\n" if header else "") + "".join(row + end for row in rows)


def binary(table, *, end=b""):
    rows = (word.encode() + b" " + struct.pack(f"<{len(values)}f", *values) + end for word, values in table)
    return f"{len(table)} {len(table[0][1])}\n".encode() + b"".join(rows)


FLOATS = pl.List(pl.Float32)


def parquet(path, table, kind=FLOATS):
    words, vectors = zip(*table, strict=True)
    pl.DataFrame({"word": words, "vector": pl.Series(vectors, dtype=kind)}).write_parquet(path)
    return path


TABLE = list(VECTORS.items())
FORMS = {
    "glove": text(TABLE).encode(),
    "word2vec text": text(TABLE, header=True).encode(),
    "fasttext, which ends rows in a space": text(TABLE, header=True, end=" \n").encode(),
    "crlf": text(TABLE, header=True, end="\r\n").encode(),
    "no final newline": text(TABLE).rstrip("\n").encode(),
    "a blank last line": (text(TABLE) + "\n").encode(),
    "gensim binary": binary(TABLE),
    "word2vec.c binary": binary(TABLE, end=b"\n"),
}


@pytest.fixture
def write(tmp_path):
    def _write(content, name="vectors.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_vectors_whatever_the_suffix_says(write, form, gzipped):
    path = write(gzip.compress(FORMS[form]), "vectors.txt") if gzipped else write(FORMS[form], "vectors.gz")
    got = read_vectors(path, ["film", "absent", "naïve", "the", "film"])
    expected = [VECTORS["film"], [0.0] * 4, VECTORS["naïve"], VECTORS["the"], VECTORS["film"]]
    assert got.matrix.dtype == np.float32
    np.testing.assert_array_equal(got.matrix, np.array(expected, np.float32))
    assert got.found.tolist() == [True, False, True, True, True]


def test_words_are_looked_up_as_written_then_in_other_cases(write):
    table = [("Paris", [1.0]), ("paris", [2.0]), ("PARIS", [3.0]), ("Rome", [4.0]), ("OSLO", [5.0]), ("iPhone", [6.0])]
    wanted = ["PARIS", "pARIS", "paris", "Paris", "rome", "oslo", "iphone", "bern"]
    for order, first in ((table, 1.0), (table[::-1], 3.0)):
        got = read_vectors(write(text(order, header=True)), wanted)
        assert got.matrix[:, 0].tolist() == [3.0, first, 2.0, 1.0, 4.0, 5.0, 6.0, 0.0]
        assert got.found.tolist() == [True] * 7 + [False]
    both = read_vectors(write(text([("iPhone", [6.0])])), ["iPhone", "iphone"])
    assert both.matrix[:, 0].tolist() == [6.0, 6.0]


def test_the_first_vector_of_a_word_counts_and_any_byte_may_come(write):
    table = [("cat", [1.0, 1.0]), ("dog", [5.0, 5.0]), ("cat", [2.0, 2.0])]
    for content in (text(table), binary(table)):
        assert read_vectors(write(content), ["cat"]).matrix.tolist() == [[1.0, 1.0]]
    # 0x20 and 0x0a inside the values are neither separators nor line ends
    values = struct.unpack("<2f", b"\x20\x0a\x20\x3f\x0a\x20\x0a\x3f")
    for end in (b"", b"\n"):
        got = read_vectors(write(binary([("a", values), ("the", values), ("b", [1.0, 2.0])], end=end)), ["the", "b"])
        assert got.matrix.tolist() == [list(values), [1.0, 2.0]]


@pytest.mark.parametrize(
    ("rows", "wanted", "matrix"),
    [
        ("the 1 2\n\ncat 3 4\n\n\n", ["cat", ""], [[3, 4], [0, 0]]),  # blank lines
        ("7 1 2\n1999 3 4\n", ["1999", "7"], [[3, 4], [1, 2]]),  # words that are numbers
        ("\ufeffthe  1 2\ncat 3   4\n", ["the", "cat"], [[1, 2], [3, 4]]),  # a mark at the beginning, more spaces
        ("\ufeff2 2\nthe  1 2\ncat 3   4\n", ["the", "cat"], [[1, 2], [3, 4]]),
        (  # words with spaces
            "the 1 2\nat name@domain.com 3 4\n. . . 5 6\nat 7 8\n. 9 10\n",
            ["at", ".", "the", "name@domain.com"],
            [[7, 8], [9, 10], [1, 2], [0, 0]],
        ),
    ],
)
def test_odd_rows(write, rows, wanted, matrix):
    assert read_vectors(write(rows), wanted).matrix.tolist() == matrix


def test_a_vector_may_lie_across_two_blocks(write, monkeypatch):
    rng = np.random.default_rng(0)
    table = [(f"word{i}", rng.normal(size=7).astype(np.float32).tolist()) for i in range(50)]
    expected = np.array([values for _, values in table], np.float32)
    for size in (1, 13, 100):
        monkeypatch.setattr(vectors, "_BLOCK", size)
        for content in (text(table), text(table, header=True), binary(table), binary(table, end=b"\n")):
            np.testing.assert_array_equal(read_vectors(write(content), [word for word, _ in table]).matrix, expected)


CUT = {
    "text, inside a row": (FORMS["glove"][:-12], "row 4 breaks off"),
    "text with a header, after a row": (text(TABLE, header=True).rsplit("naïve")[0].encode(), "3 of 4 vectors"),
    "text with a header, a blank line for the last row": (b"2 2\nthe 1 2\n\n", "1 of 2 vectors"),
    "text with a header alone": (b"4 4\n", "0 of 4 vectors"),
    "gzip": (gzip.compress(FORMS["glove"])[:-20], "gzip"),
}


@pytest.mark.parametrize("case", CUT)
def test_a_cut_file_is_refused_whatever_words_are_wanted(write, case):
    content, reason = CUT[case]
    path = write(content)
    for wanted in (["the"], ["naïve"], []):
        with raising(DataError, "cut", file=path, what=reason):
            read_vectors(path, wanted)


def test_every_place_to_cut_a_binary_file_is_noticed(write):
    whole = FORMS["gensim binary"]
    for end in range(len(b"4 4\n"), len(whole)):
        with pytest.raises(DataError, match="vectors"):
            read_vectors(write(whole[:end]), ["the"])


BROKEN = {
    "a value too few": ("the 1 2\ncat 1\ndog 1 2\n", 2, "'cat' has 1 values where the file has 2"),
    "a value too many": ("3 2\nthe 1 2\ncat 1 2 3\ndog 1 2\n", 3, "'cat' has 3 values where the file has 2"),
    "not a number": ("the 1 2\ncat 1 x\ndog 1 2\n", 2, "'cat' is no list of numbers"),
    "NaN": ("the 1 2\ndog 3 4\ncat 1 nan\n", 3, "'cat' holds a value that is not finite"),
    "beyond float32": ("the 1 2\ncat 1 1e60\n", 2, "'cat' holds a value that is not finite"),
    "a header with another dimension": ("2 3\nthe 1 2\ncat 1 2\n", 2, "'the' has 2 values where the file has 3"),
    "NaN in binary": (binary([("the", [1.0]), ("cat", [float("nan")])]), 3, "'cat' holds a value that is not finite"),
    "empty": (b"", None, "empty"),
    "words alone": (b"the\ncat\n", None, "no word vectors"),
    "a table": (b"sentence\tlabel\na fine film\t1\n", None, "no word vectors"),
    "no vectors": (b"0 300\n", None, "no vectors"),
    "zip": (b"PK\x03\x04....", None, "a zip archive"),
    "fastText model": (b"\xba\x16\x4f\x2f\x0c\x00", None, "a fastText model"),
    "a binary file with a smaller dimension in its header": (b"4 3" + FORMS["gensim binary"][3:], None, "left over"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_vector_is_named_by_row_and_word_and_another_file_is_refused(write, case):
    content, row, reason = BROKEN[case]
    path = write(content)
    with raising(DataError, reason, file=path, **({"row": row} if row else {})):
        read_vectors(path, ["dog", "cat"])


@pytest.mark.parametrize("kind", [pl.List(pl.Float32), pl.List(pl.Float64), pl.Array(pl.Float32, 4)])
def test_a_parquet_file_gives_the_same_vectors(tmp_path, kind):
    path = parquet(tmp_path / "v.parquet", [*TABLE, ("film", [9.0] * 4), ("Film", [8.0] * 4)], kind)
    got = read_vectors(path, ["FILM", "absent", "naïve", "paris", "film"])
    expected = [VECTORS["film"], [0.0] * 4, VECTORS["naïve"], VECTORS["Paris"], VECTORS["film"]]
    np.testing.assert_array_equal(got.matrix, np.array(expected, np.float32))
    assert got.found.tolist() == [True, False, True, True, True]
    assert read_vectors(path, []).matrix.shape == (0, 4)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"sentence": ["a"]}, "the columns word and vector"),
        ({"word": ["a"], "vector": ["b"]}, "the columns word and vector"),
        ({"word": ["the", "b"], "vector": [[1.0], [1.0, 2.0]]}, "no common size"),
        ({"word": ["the", "b"], "vector": [[1.0], [float("nan")]]}, "'b' holds a value that is not finite"),
        ({"word": ["the", "b"], "vector": [[1.0], None]}, "no common size"),
    ],
)
def test_a_parquet_file_of_something_else(tmp_path, columns, reason):
    pl.DataFrame(columns).write_parquet(tmp_path / "v.parquet")
    with raising(DataError, reason, file=tmp_path / "v.parquet"):
        read_vectors(tmp_path / "v.parquet", ["the", "b"])


def test_the_words_of_a_file_in_its_order_and_files_that_cannot_be_read(tmp_path):
    table = [(word, [float(place), 0.5]) for place, word in enumerate(["the", "naïve", "new york", "中文", "film"])]
    (tmp_path / "v.txt").write_text(text(table), "utf-8")
    for path in (tmp_path / "v.txt", parquet(tmp_path / "v.parquet", table)):
        assert list(words_with_vectors(str(path), QuietReporter())) == [word for word, _ in table]
    for path in (tmp_path / "absent.txt", tmp_path):
        with raising(DataError, "cannot read", hint=True):
            read_vectors(path, ["the"])
    path = parquet(tmp_path / "v.parquet", TABLE)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError):
        read_vectors(path, ["the"])
