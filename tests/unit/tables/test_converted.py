"""Converted word vectors: the same as their source in every way of asking, and files that are broken."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from kdcli.api import QuietReporter
from kdcli.errors import DataError
from kdcli.student import converted
from kdcli.student.converted import convert
from kdcli.student.vectors import read_vectors, words_of
from kdcli.student.word_vectors import make_vectors

QUIET = QuietReporter()
GLOVE = Path(__file__).resolve().parents[3] / "../shared/data/vectors/glove.6B.50d.top3k.txt"
TABLE = [("the", [0.25, -1.5]), ("film", [1.0, 2.0]), ("Paris", [-0.75, 8.0]), ("naïve", [0.5, -4.0])]


def text(table, *, header=True):
    rows = [f"{word} {' '.join(map(str, values))}\n" for word, values in table]
    return ((f"{len(rows)} {len(table[0][1])}\n" if header else "") + "".join(rows)).encode()


def binary(table):
    rows = (word.encode() + b" " + struct.pack(f"<{len(values)}f", *values) for word, values in table)
    return f"{len(table)} {len(table[0][1])}\n".encode() + b"".join(rows)


@pytest.fixture
def made(tmp_path):
    """Convert what a source file holds."""

    def _made(content):
        source, output = tmp_path / "vectors.source", tmp_path / "vectors.safetensors"
        source.write_bytes(content)
        convert(source, output, QUIET)
        return output

    return _made


SOURCES = {
    "glove": text(TABLE, header=False),
    "word2vec text": text(TABLE),
    "fasttext, which ends rows in a space": text(TABLE).replace(b"\n", b" \n").replace(b"4 2 ", b"4 2"),
    "a blank last line": text(TABLE) + b"\n",
    "no final newline": text(TABLE)[:-1],
    "word2vec binary": binary(TABLE),
    "gzipped": gzip.compress(text(TABLE)),
    "gzipped binary": gzip.compress(binary(TABLE)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_form_of_source_gives_the_same_vectors(made, source):
    got = read_vectors(made(SOURCES[source]), ["film", "absent", "naïve", "film"])
    assert got.matrix.dtype == np.float32
    assert got.matrix.tolist() == [[1, 2], [0, 0], [0.5, -4], [1, 2]]
    assert got.found.tolist() == [True, False, True, True]


# Few letters, so that words are repeated and are spellings of each other; U+0085 and NBSP are no white space here.
words = st.text(st.sampled_from("aAbBéÉß\x85\xa0\u2028日"), min_size=1, max_size=3)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
sized = {size: st.tuples(words, st.lists(numbers, min_size=size, max_size=size)) for size in (1, 3)}
tables = st.sampled_from(sorted(sized)).flatmap(lambda size: st.lists(sized[size], min_size=1, max_size=12))


def first_by_spelling(table, word):
    """The rule in plain words: as written, else lower, else capitalised; the first of several."""
    for spelling in (word, word.lower(), word.capitalize()):
        for other, values in table:
            if other == spelling:
                return values
    return None


@given(tables, st.lists(words), st.sampled_from([text, binary]), st.booleans())
@example([("a", [1.0]), ("A", [2.0]), ("a", [3.0])], ["A", "a", "AA"], text, True)
def test_any_converted_file_answers_as_its_source(tmp_path_factory, table, wanted, form, collide):
    folder = tmp_path_factory.mktemp("vectors")
    source, output = folder / "source", folder / "converted"
    source.write_bytes(form(table))
    with pytest.MonkeyPatch.context() as patch:
        if collide:
            patch.setattr(converted, "_hash", len)
        convert(source, output, QUIET)
        wanted = [*wanted, *(word for word, _ in table)]
        got, expected = read_vectors(output, wanted), read_vectors(source, wanted)
    np.testing.assert_array_equal(got.matrix, expected.matrix)
    np.testing.assert_array_equal(got.found, expected.found)
    plain = [first_by_spelling(table, word) for word in wanted]
    assert got.found.tolist() == [values is not None for values in plain]
    zeros = [0.0] * len(table[0][1])
    np.testing.assert_array_equal(got.matrix, np.array([values or zeros for values in plain], np.float32))


def test_words_that_share_a_hash_keep_their_own_vectors(made, monkeypatch):
    monkeypatch.setattr(converted, "_hash", lambda word: 7)
    got = read_vectors(made(text(TABLE)), ["Paris", "absent", "the", "naive"])
    assert got.matrix.tolist() == [[-0.75, 8], [0, 0], [0.25, -1.5], [0, 0]]


def test_the_first_of_several_vectors_of_a_word_counts(made):
    table = [("cat", [1.0]), ("dog", [5.0]), ("cat", [2.0]), ("cat", [3.0])]
    for form in (text, binary):
        assert read_vectors(made(form(table)), ["cat", "dog"]).matrix.tolist() == [[1], [5]]


def test_words_with_spaces_are_kept_whole_and_are_not_their_pieces(made):
    output = made(b"the 1 2\nat name@domain.com 3 4\n. . . 5 6\nat 7 8\n")
    got = read_vectors(output, ["at", ".", "the", "name@domain.com", ". . .", "at name@domain.com"])
    assert got.matrix.tolist() == [[7, 8], [0, 0], [1, 2], [0, 0], [5, 6], [3, 4]]


def test_bytes_that_are_no_utf8_do_no_harm(made):
    assert read_vectors(made(b"\xff\xfe 1 2\nthe 3 4\n"), ["the", "ÿþ"]).matrix.tolist() == [[3, 4], [0, 0]]


def test_a_word_may_be_empty(made):
    got = read_vectors(made(b"the 1 2\n 3 4\n"), ["", "the"])
    assert got.matrix.tolist() == [[3, 4], [1, 2]]


def test_rows_are_read_over_several_maps(made, monkeypatch):
    rng = np.random.default_rng(0)
    table = [(f"word{i}", rng.normal(size=3).astype(np.float32).tolist()) for i in range(50)]
    output = made(text(table))
    for size in (1, 7, 50):
        monkeypatch.setattr(converted, "_ROWS_A_MAP", size)
        order = rng.permutation(50)
        got = read_vectors(output, [table[i][0] for i in order])
        np.testing.assert_array_equal(got.matrix, np.array([table[i][1] for i in order], np.float32))


def test_rows_are_read_where_the_system_takes_no_advice(made, monkeypatch):
    monkeypatch.delattr("os.posix_fadvise", raising=False)
    assert read_vectors(made(text(TABLE)), ["film"]).matrix.tolist() == [[1, 2]]


def test_no_words_are_no_rows(made):
    got = read_vectors(made(text(TABLE)), [])
    assert (got.matrix.shape, got.found.shape) == ((0, 2), (0,))


def test_a_converted_file_is_known_by_its_content(made, tmp_path):
    other = made(text(TABLE)).rename(tmp_path / "vectors.txt")
    assert read_vectors(other, ["the"]).found.all()
    (tmp_path / "vectors.safetensors").write_bytes(text(TABLE))
    assert read_vectors(tmp_path / "vectors.safetensors", ["the"]).found.all()


def test_the_file_is_plain_safetensors(made):
    output = made(text(TABLE))
    tensors = load_file(output)
    assert tensors["vectors"].tolist() == [values for _, values in TABLE]
    assert tensors["words"].tobytes().decode() == "".join(word for word, _ in TABLE)
    assert np.diff(tensors["offsets"]).tolist() == [len(word.encode()) for word, _ in TABLE]
    assert (np.diff(tensors["hashes"].astype(object)) > 0).all()
    with safe_open(output, "numpy") as file:
        metadata = json.loads(file.metadata()["kd"])
    assert metadata == {"format": "kd.vectors/1", "source": "vectors.source", "words": 4, "dimension": 2}


def test_equal_sources_give_equal_bytes(made):
    assert made(text(TABLE)).read_bytes() == made(text(TABLE)).read_bytes()


def test_converting_holds_no_matrix_in_memory(tmp_path):
    source, output = tmp_path / "source", tmp_path / "converted"
    table = np.zeros((4000, 1000), "<f4")
    source.write_bytes(b"4000 1000\n" + b"".join(f"w{i} ".encode() + row.tobytes() for i, row in enumerate(table)))
    tracemalloc.start()
    try:
        convert(source, output, QUIET)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < table.nbytes / 3


BROKEN = {
    "a value too few": (b"the 1 2\ncat 1\ndog 1 2\n", 2, "'cat' has 1 values where the file has 2"),
    "not a number": (b"4 2\nthe 1 2\ncat 1 2\ndog 1 x\na 1 2\n", 4, "'dog' is no list of numbers"),
    "NaN": (b"the 1 2\ndog 3 4\ncat 1 nan\nend 1 2\n", 3, "'cat' holds a value that is not finite"),
    "beyond float32": (b"the 1 2\ncat 1 1e60\nend 1 2\n", 2, "'cat' holds a value that is not finite"),
    "NaN in binary": (binary([("the", [1.0]), ("cat", [float("nan")])]), 3, "'cat' holds a value that is not finite"),
    "a missing row": (b"3 2\nthe 1 2\ncat 1 2\n", None, "cut: it ends after 2 of 3 vectors"),
    "a cut row": (b"the 1 2\ncat 1", None, "cut: row 2 breaks off"),
    "a cut vector": (binary(TABLE)[:-3], None, "cut: it ends after 3 of 4 vectors"),
    "a cut gzip stream": (gzip.compress(text(TABLE))[:-12], None, "cut: the gzip stream breaks off"),
    "no vectors": (b"a fine film\n", 1, "no word vectors"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_any_broken_row_of_the_source_is_named_and_nothing_is_written(tmp_path, case):
    content, row, reason = BROKEN[case]
    source, folder = tmp_path / "source", tmp_path / "out"
    source.write_bytes(content)
    with pytest.raises(DataError) as caught:
        convert(source, folder / "converted", QUIET)
    assert reason in caught.value.what
    assert (caught.value.row, caught.value.file) == (row, str(source))
    assert not folder.exists() or not list(folder.iterdir())


def test_what_was_there_stays_when_the_source_is_broken(made):
    output = made(text(TABLE))
    before = output.read_bytes()
    with pytest.raises(DataError):
        made(b"the 1 2\ncat 1 x\n")
    assert output.read_bytes() == before


def test_a_missing_source_and_a_converted_one_are_errors(made, tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        convert(tmp_path / "absent", tmp_path / "out", QUIET)
    with pytest.raises(DataError, match="safetensors file, not one to convert"):
        convert(made(text(TABLE)), tmp_path / "out", QUIET)


def test_every_place_to_cut_a_converted_file_is_noticed(made, tmp_path):
    whole = made(text(TABLE)).read_bytes()
    path = tmp_path / "cut"
    for end in (*range(0, 200, 7), *range(4000, len(whole))):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError) as caught:
            read_vectors(path, ["the"])
        assert caught.value.file == str(path)


def test_a_changed_byte_of_the_index_never_gives_a_wrong_vector(made, tmp_path):
    whole = made(text(TABLE)).read_bytes()
    own, path = dict(TABLE), tmp_path / "changed"
    noticed = 0
    for place in range(4096 + 4 * 2 * len(TABLE), len(whole)):
        for change in (0x01, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            try:
                got = read_vectors(path, list(own))
            except DataError as error:
                assert "damaged" in error.what
                noticed += 1
            else:
                for word, vector, found in zip(own, got.matrix.tolist(), got.found, strict=True):
                    assert vector == (own[word] if found else [0, 0])
    assert noticed


@given(st.integers(0, 600), st.integers(0, 255))
def test_a_changed_byte_of_the_header_is_an_error_or_does_no_harm(tmp_path_factory, place, byte):
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "source").write_bytes(text(TABLE))
    convert(folder / "source", folder / "converted", QUIET)
    content = bytearray((folder / "converted").read_bytes())
    content[place] = byte
    (folder / "converted").write_bytes(content)
    try:
        got = read_vectors(folder / "converted", ["the", "film"])
    except DataError as error:
        assert error.file
    else:
        assert got.matrix[got.found].tolist() == [TABLE[i][1] for i in np.flatnonzero(got.found)]


def test_a_vector_that_is_damaged_to_nan_is_an_error(made):
    output = made(text(TABLE))
    content = bytearray(output.read_bytes())
    content[4096:4100] = struct.pack("<f", float("nan"))
    output.write_bytes(content)
    with pytest.raises(DataError, match="damaged: a vector holds a value that is not finite"):
        read_vectors(output, ["the"])


FOREIGN = {
    "of no format": None,
    "of another format": {"kd": json.dumps({"format": "kd.logits/1"})},
    "with metadata that are no object": {"kd": "[]"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_another_safetensors_file_is_refused(tmp_path, case):
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros((3, 2), np.float32)}, path, FOREIGN[case])
    with pytest.raises(DataError, match="no file of word vectors") as caught:
        read_vectors(path, ["the"])
    assert caught.value.hint


def test_tensors_that_do_not_fit_the_metadata_are_refused(made, tmp_path):
    tensors, metadata = load_file(made(text(TABLE))), {"format": "kd.vectors/1", "words": 4, "dimension": 2}
    wrong = {
        "a tensor less": {name: values for name, values in tensors.items() if name != "rows"},
        "a row less": {**tensors, "vectors": tensors["vectors"][:3]},
        "another type": {**tensors, "hashes": tensors["hashes"].astype(np.int64)},
    }
    for changed in wrong.values():
        save_file(changed, tmp_path / "wrong", {"kd": json.dumps(metadata)})
        with pytest.raises(DataError, match="damaged"):
            read_vectors(tmp_path / "wrong", ["the"])
    save_file(tensors, tmp_path / "wrong", {"kd": json.dumps({"format": "kd.vectors/1", "words": 4})})
    with pytest.raises(DataError, match="damaged"):
        read_vectors(tmp_path / "wrong", ["the"])


def test_a_student_begins_with_the_same_vectors_from_either_file(made, tmp_path):
    output = made(text(TABLE))
    vocabulary = ["[PAD]", "the", "unheard", "FILM"]
    one, other = (
        make_vectors(vocabulary, source=str(path), dimension=0, seed=1, device="cpu", reporter=QUIET)
        for path in (tmp_path / "vectors.source", output)
    )
    np.testing.assert_array_equal(one.matrix, other.matrix)
    assert (other.found, other.matrix[3].tolist()) == (2, [1.0, 2.0])


@pytest.mark.skipif(not GLOVE.exists(), reason="needs ../shared")
def test_the_real_glove_file_answers_as_its_source(tmp_path):
    convert(GLOVE, tmp_path / "glove", QUIET)
    lines = GLOVE.read_text(encoding="utf-8").split("\n")[1:-1]
    wanted = [spelling(line.split(" ")[0]) for line in lines for spelling in (str, str.upper, str.title)]
    got, expected = read_vectors(tmp_path / "glove", wanted), read_vectors(GLOVE, wanted)
    np.testing.assert_array_equal(got.matrix, expected.matrix)
    assert got.found.tolist() == expected.found.tolist()
    assert got.found[::3].all()


@pytest.mark.parametrize("rows_a_map", [2, 1000])
def test_the_words_of_a_file_in_its_order(tmp_path, monkeypatch, rows_a_map):
    monkeypatch.setattr("kdcli.student.converted._ROWS_A_MAP", rows_a_map)
    words = ["the", "naïve", "new york", "中文", "film"]
    text, converted = tmp_path / "some.txt", tmp_path / "some.safetensors"
    text.write_text("".join(f"{word} {place} 0.5\n" for place, word in enumerate(words)), "utf-8")
    convert(text, converted, QuietReporter())
    assert list(words_of(converted)) == words
    assert list(words_of(text)) == words
