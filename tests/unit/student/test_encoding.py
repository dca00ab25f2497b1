import json

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from kdcli.api import Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError
from kdcli.student import word_vectors
from kdcli.student.arrays import ArrayWriter, open_array
from kdcli.student.encoding import (
    encode,
    encode_table,
    load_examples,
    load_tokenizer,
    load_vectors,
)
from kdcli.student.vectors import WordVectors
from kdcli.student.vocabulary import vocabulary
from kdcli.tables.read import write_table

SINGLE = Task("t", "single", ("0", "1"))
PAIR = Task("t", "pair", ("no", "yes", "maybe"))
SCORE = Task("t", "single", (), score_range=(0.0, 5.0), metric="pearson")


def joined(tmp_path, columns, suffix="tsv"):
    path = tmp_path / f"joined.{suffix}"
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    with write_table(path, table.schema) as writer:
        writer.write(table)
    return path


def single(tmp_path, suffix="tsv", **changed):
    columns = {
        "sentence": ["a good film", "a [MASK] film", "", "bad bad bad"],
        "source": ["original", "lite", "lite", "original"],
        "label": ["1", "1", "0", "0"],
        "logits_0": pa.array([-0.1, 1e-30, 0.1, 3.3], pa.float32()),
        "logits_1": pa.array([1.5, 2.0, -0.7, 1 / 3], pa.float32()),
    }
    columns |= changed
    return joined(tmp_path, {name: values for name, values in columns.items() if values is not None}, suffix)


def run(tmp_path, path, task=SINGLE, encoder="", **settings):
    output = tmp_path / "encoded"
    result = encode(
        joined=path, task=task, settings=StudentSettings(**settings), seed=1, encoder=encoder, output=output
    )
    return result, output


def words_of(texts, tokenizer):
    names = vocabulary(tokenizer)
    ends = zip(texts.offsets, texts.offsets[1:], strict=False)
    return [[names[word] for word in texts.words[begin:end]] for begin, end in ends]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "parquet", "jsonl", "tsv.gz"])
def test_arrays_of_a_joined_set(tmp_path, suffix):
    result, output = run(tmp_path, single(tmp_path, suffix))
    examples, tokenizer = load_examples(output, SINGLE), load_tokenizer(output)
    assert words_of(examples.texts[0], tokenizer) == [
        ["a", "good", "film"],
        ["a", "[MASK]", "film"],
        ["[MASK]"],
        ["bad", "bad", "bad"],
    ]
    assert examples.lengths.tolist() == [3, 3, 1, 3]
    # Full float32 precision, whatever the form of the table.
    expected = np.array([[-0.1, 1.5], [1e-30, 2.0], [0.1, -0.7], [3.3, 1 / 3]], np.float32)
    assert examples.logits.tobytes() == expected.tobytes()
    assert examples.labels.tolist() == [1, 1, 0, 0]
    assert (result.rows, result.words, result.vocabulary, result.labelled) == (4, 10, 6, True)
    assert result.unknown == pytest.approx(0.1)
    assert json.loads((output / "encoded.json").read_text())["rows"] == 4
    assert isinstance(examples.texts[0].words, np.memmap)
    assert isinstance(examples.logits, np.memmap)
    assert load_vectors(output) is None


def test_pair_has_one_vocabulary(tmp_path):
    columns = {"sentence1": ["a b", "c"], "sentence2": ["b", "d e f g"], "label": ["yes", "no"]}
    columns |= {f"logits_{number}": [0.0, 1.0] for number in range(3)}
    _, output = run(tmp_path, joined(tmp_path, columns), PAIR, max_length=3)
    examples, tokenizer = load_examples(output, PAIR), load_tokenizer(output)
    assert words_of(examples.texts[0], tokenizer) == [["a", "b"], ["c"]]
    assert words_of(examples.texts[1], tokenizer) == [["b"], ["d", "e", "f"]]
    assert examples.lengths.tolist() == [2, 3]
    assert examples.labels.tolist() == [1, 0]


def test_scores(tmp_path):
    # A teacher's own score may leave the task's range.
    path = joined(tmp_path, {"sentence": ["a", "b"], "label": ["5.25", "-0.5"], "logits_0": [5.25, -0.5]})
    _, output = run(tmp_path, path, SCORE)
    examples = load_examples(output, SCORE)
    assert examples.labels.dtype == np.float32
    assert examples.labels.tolist() == [5.25, -0.5]
    assert examples.logits.tolist() == [[5.25], [-0.5]]


@pytest.mark.parametrize("labels", [None, ["1", "", "0", "0"], ["", "", "", ""]])
def test_labels_are_all_there_or_not_at_all(tmp_path, labels):
    result, output = run(tmp_path, single(tmp_path, label=labels))
    assert not result.labelled
    assert load_examples(output, SINGLE).labels is None


def test_more_rows_than_a_batch(tmp_path):
    count = 150_000
    texts = [f"w{number % 1000} x" for number in range(count)]
    logits = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    path = joined(
        tmp_path,
        {"sentence": texts, "label": ["0"] * count, "logits_0": logits[:, 0], "logits_1": logits[:, 1]},
        "parquet",
    )
    _, output = run(tmp_path, path, min_freq=2)
    examples = load_examples(output, SINGLE)
    assert len(examples) == count == len(examples.labels)
    assert np.array_equal(examples.logits, logits)
    table = pa.table({"sentence": texts, "label": pa.array(["0"] * count)})
    direct = encode_table(table, load_tokenizer(output), SINGLE, 128)
    assert np.array_equal(examples.texts[0].words, direct.texts[0].words)
    assert np.array_equal(examples.texts[0].offsets, direct.texts[0].offsets)


@pytest.mark.parametrize(
    ("changed", "message", "row"),
    [
        ({"sentence": None}, "no column 'sentence'", None),
        ({"logits_1": None}, "no column 'logits_1'", None),
        ({"logits_2": [0.0, 0, 0, 0]}, "more logits than the 2", None),
        ({"label": ["1", "2", "0", "0"]}, "'2'", 3),
        ({"logits_1": ["1", "0.5", "x", "2"]}, "logits_1 must be a finite number, not 'x'", 4),
        ({"logits_0": ["1", "nan", "0", "2"]}, "logits_0 must be a finite number", 3),
        ({"logits_0": ["1", "", "0", "2"]}, "logits_0 must be a finite number", 3),
        ({"sentence": ["", "", "", ""]}, "no word", None),
    ],
)
def test_bad_tables(tmp_path, changed, message, row):
    with pytest.raises(DataError, match=message) as caught:
        run(tmp_path, single(tmp_path, **changed))
    assert caught.value.row == row
    assert not (tmp_path / "encoded").exists()


def test_vectors_of_a_file(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("film 1 2 3\ngood 4 5 6\nunseen 7 8 9\n")
    result, output = run(tmp_path, single(tmp_path), encoder=str(file), vectors=str(file))
    vectors, words = load_vectors(output), vocabulary(load_tokenizer(output))
    assert vectors.matrix.shape == (7, 3)
    assert words[6] == "unseen", "a word that has a vector can be read though the joined set has it not"
    assert vectors.matrix[6].tolist() == [7, 8, 9]
    assert vectors.matrix[words.index("film")].tolist() == [1, 2, 3]
    assert vectors.matrix[words.index("good")].tolist() == [4, 5, 6]
    assert vectors.matrix[0].tolist() == [0, 0, 0]
    others = vectors.matrix[[words.index(word) for word in ("a", "bad", "[MASK]")]]
    assert np.abs(others).max() <= 0.25
    assert len(np.unique(others)) == others.size
    assert (result.vectors, result.found) == (f"file {file}", 3) == (vectors.source, vectors.found)
    assert load_file(output / "vectors.safetensors").keys() == {"vectors"}


def test_vectors_of_an_encoder(tmp_path, monkeypatch):
    asked = []

    def made(encoder, words, dimension, *, device, reporter):
        asked.append((encoder, list(words), dimension, device))
        return np.ones((len(words), dimension), np.float32)

    monkeypatch.setattr(word_vectors, "encoder_vectors", made)
    monkeypatch.setattr(word_vectors, "encoder_words", lambda encoder, reporter: iter(["scene", "film"]))
    result, output = run(tmp_path, single(tmp_path), encoder="some/encoder", vectors="teacher", dimension=5)
    assert asked == [("some/encoder", vocabulary(load_tokenizer(output)), 5, "cpu")]
    assert vocabulary(load_tokenizer(output))[6:] == ["scene"]
    assert load_vectors(output).matrix[1:].min() == 1
    assert (result.vectors, result.found) == ("encoder some/encoder", 7)


def test_a_file_without_our_words_is_an_error(tmp_path, monkeypatch):
    file = tmp_path / "vectors.txt"
    file.write_text("x 1 2 3\n")
    nothing = WordVectors(np.zeros((6, 3), np.float32), np.zeros(6, np.bool_))
    monkeypatch.setattr(word_vectors, "read_vectors", lambda *_, **__: nothing)
    with pytest.raises(DataError, match="no word of the vocabulary"):
        run(tmp_path, single(tmp_path), encoder=str(file), vectors=str(file))


def test_table_with_labels_or_without(tmp_path):
    _, output = run(tmp_path, single(tmp_path))
    tokenizer = load_tokenizer(output)
    texts = pa.chunked_array([["a film"], [""], pa.array([], pa.string()), ["good"]])
    table = pa.table({"sentence": texts, "label": pa.chunked_array([["0"], ["1", "1"]])})
    examples = encode_table(table, tokenizer, SINGLE, 128)
    assert words_of(examples.texts[0], tokenizer) == [["a", "film"], ["[MASK]"], ["good"]]
    assert examples.labels.tolist() == [0, 1, 1]
    assert examples.logits is None
    assert encode_table(table.drop_columns("label"), tokenizer, SINGLE, 128).labels is None
    none = table.set_column(1, "label", pa.nulls(3, pa.string()))
    assert encode_table(none, tokenizer, SINGLE, 128).labels is None
    with pytest.raises(DataError, match="dev\\.tsv"):
        encode_table(table.set_column(1, "label", pa.array(["0", None, "1"])), tokenizer, SINGLE, 128, file="dev.tsv")


def test_a_folder_of_another_task_is_refused(tmp_path):
    _, output = run(tmp_path, single(tmp_path))
    with pytest.raises(DataError, match="not one of task"):
        load_examples(output, Task("other", "single", ("0", "1", "2")))
    with pytest.raises(DataError, match="no encoded"):
        load_examples(output, PAIR)
    with pytest.raises(DataError, match="no encoded"):
        load_examples(tmp_path / "nothing", SINGLE)


def test_digest_sees_every_array(tmp_path):
    _, output = run(tmp_path, single(tmp_path))
    before = load_examples(output, SINGLE).digest()
    assert load_examples(output, SINGLE).digest() == before
    for name in ("sentence.words", "sentence.offsets", "logits", "labels"):
        array = np.load(output / f"{name}.npy")
        array.ravel()[-1] += 1
        np.save(output / f"{name}.npy", array)
        changed = load_examples(output, SINGLE).digest()
        assert changed != before
        before = changed


@pytest.mark.parametrize("width", [None, 3])
def test_array_written_in_pieces(tmp_path, width):
    pieces = [np.arange(number * (width or 1), dtype=np.float32) for number in (2, 0, 5)]
    pieces = [piece.reshape(-1, width) if width else piece for piece in pieces]
    with ArrayWriter(tmp_path / "a.npy", np.float32, width) as writer:
        for piece in pieces:
            writer.write(piece)
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.concatenate(pieces))
    with ArrayWriter(tmp_path / "empty.npy", np.uint16, width):
        pass
    assert open_array(tmp_path / "empty.npy").shape == ((0,) if width is None else (0, 3))
