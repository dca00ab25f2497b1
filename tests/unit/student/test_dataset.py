import json

import numpy as np
import polars as pl
import pytest
from notes import Notes
from raising import raising
from safetensors.numpy import load_file

from kdcli.api import QuietReporter, Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError
from kdcli.student import encoder_vectors
from kdcli.student.dataset import encode, encode_table, load_examples
from kdcli.student.vectors import load_vectors
from kdcli.student.vocabulary import load_tokenizer, vocabulary
from kdcli.tables.write import write_table

SINGLE = Task("t", "single", ("0", "1"))
PAIR = Task("t", "pair", ("no", "yes", "maybe"))
SAME = Task("same", "pair", ("0", "1"))
QNLI = Task("qnli", "pair", ("entailment", "not_entailment"))
STARS = Task("stars", "pair", (), score_range=(0, 5), metric="pearson")


def joined(tmp_path, columns, suffix="tsv"):
    path = tmp_path / f"joined.{suffix}"
    write_table(path, pl.DataFrame(columns))
    return path


def single(tmp_path, suffix="tsv", **changed):
    columns = {
        "sentence": ["a good film", "a [MASK] film", "", "bad bad bad"],
        "source": ["original", "lite", "lite", "original"],
        "label": ["1", "1", "0", "0"],
        "logits_0": pl.Series([-0.1, 1e-30, 0.1, 3.3], dtype=pl.Float32),
        "logits_1": pl.Series([1.5, 2.0, -0.7, 1 / 3], dtype=pl.Float32),
    }
    columns |= changed
    return joined(tmp_path, {name: values for name, values in columns.items() if values is not None}, suffix)


def run(tmp_path, path, task=SINGLE, encoder="", reporter=QuietReporter(), **settings):
    output = tmp_path / "encoded"
    given = {"settings": StudentSettings(**settings), "seed": 1, "encoder": encoder, "reporter": reporter}
    return encode(joined=path, task=task, output=output, **given), output


def words_of(texts, tokenizer):
    names = vocabulary(tokenizer)
    ends = zip(texts.offsets, texts.offsets[1:], strict=False)
    return [[names[word] for word in texts.words[begin:end]] for begin, end in ends]


@pytest.mark.parametrize("suffix", ["tsv", "csv", "parquet", "jsonl", "tsv.gz"])
def test_arrays_of_a_joined_set(tmp_path, suffix):
    result, output = run(tmp_path, single(tmp_path, suffix))
    examples, tokenizer = load_examples(output, SINGLE), load_tokenizer(output)
    words = [["a", "good", "film"], ["a", "[MASK]", "film"], ["[MASK]"], ["bad", "bad", "bad"]]
    assert words_of(examples.texts[0], tokenizer) == words
    assert examples.lengths.tolist() == [3, 3, 1, 3]
    # Full float32 precision, whatever the form of the table, less the mean of each row.
    logits = np.array([[-0.1, 1.5], [1e-30, 2.0], [0.1, -0.7], [3.3, 1 / 3]], np.float32)
    assert examples.logits.tobytes() == (logits - logits.mean(1, keepdims=True)).tobytes()
    assert examples.labels.tolist() == [1, 1, 0, 0]
    assert (result.rows, result.words, result.vocabulary, result.labelled) == (4, 10, 6, True)
    assert result.unknown == pytest.approx(0.1)
    assert json.loads((output / "encoded.json").read_text())["rows"] == 4
    assert not examples.texts[0].words.flags.owndata and not examples.logits.flags.owndata  # mapped from disk
    assert load_vectors(output) is None


def test_only_logits_of_a_softmax_are_centred(tmp_path):
    columns = {"sentence": ["a", "b"], "label": ["1", "0"], "logits_0": [-7.0, 2.0], "logits_1": [-5.0, 4.0]}
    several, score = Task("t", "single", ("0", "1"), multi_label=True), Task("t", "single", (), score_range=(0, 5))
    for task, expected in [
        (SINGLE, [[-1, 1], [-1, 1]]),
        (several, [[-7, -5], [2, 4]]),
        (score, [[-7], [2]]),
    ]:
        wanted = {name: values for name, values in columns.items() if name != "logits_1" or task.outputs == 2}
        folder = tmp_path / f"{task.outputs}{task.multi_label}"
        folder.mkdir()
        _, output = run(folder, joined(folder, wanted), task)
        assert load_examples(output, task).logits.tolist() == expected


def test_pair_has_one_vocabulary(tmp_path):
    columns = {"sentence1": ["a b", "c"], "sentence2": ["b", "d e f g"], "label": ["yes", "no"]}
    columns |= {f"logits_{number}": [0.0, 1.0] for number in range(3)}
    _, output = run(tmp_path, joined(tmp_path, columns), PAIR, max_length=3)
    examples, tokenizer = load_examples(output, PAIR), load_tokenizer(output)
    assert words_of(examples.texts[0], tokenizer) == [["a", "b"], ["c"]]
    assert words_of(examples.texts[1], tokenizer) == [["b"], ["d", "e", "f"]]
    assert (examples.lengths.tolist(), examples.labels.tolist()) == ([2, 3], [1, 0])


@pytest.mark.parametrize("labels", [None, ["1", "", "0", "0"], ["", "", "", ""]])
def test_labels_are_all_there_or_not_at_all(tmp_path, labels):
    result, output = run(tmp_path, single(tmp_path, label=labels))
    assert not result.labelled
    assert load_examples(output, SINGLE).labels is None


def test_more_rows_than_a_batch(tmp_path):
    count = 150_000
    texts = [f"w{number % 1000} x" for number in range(count)]
    logits = np.arange(count, dtype=np.float32)[:, None] * np.float32([1, -1])
    columns = {"sentence": texts, "label": ["0"] * count, "logits_0": logits[:, 0], "logits_1": logits[:, 1]}
    _, output = run(tmp_path, joined(tmp_path, columns, "parquet"), min_freq=2)
    examples = load_examples(output, SINGLE)
    assert len(examples) == count == len(examples.labels) and np.array_equal(examples.logits, logits)
    direct = encode_table(pl.DataFrame(columns), load_tokenizer(output), SINGLE, 128)
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
        ({"logits_0": ["1", "", "0", "2"]}, "logits_0 must be a finite number", 3),
        ({"sentence": ["", "", "", ""]}, "no word", None),
    ],
)
def test_bad_tables(tmp_path, changed, message, row):
    with raising(DataError, message, row=row):
        run(tmp_path, single(tmp_path, **changed))
    assert not (tmp_path / "encoded").exists()


@pytest.mark.parametrize(
    ("header", "rows", "task", "texts", "labels"),
    [
        ("label sentence logits_0 logits_1", ["1 a -1.5 2.25", "0 b 0.5 -3"], SINGLE, [["a", "b"]], [1, 0]),
        ("sentence1 sentence2 logits_0 logits_1", ["a b 1 2", "b a 2 1"], SAME, [["a", "b"], ["b", "a"]], [1, 0]),
        ("is_duplicate question1 question2 logits_0 logits_1", ["0 a b 1 2"], SAME, [["a"], ["b"]], [1]),
        ("index question sentence label logits_0 logits_1", ["0 a b 1 3 2"], QNLI, [["a"], ["b"]], [1]),
        ("gold_label sentence1 sentence2 logits_0 logits_1 logits_2", ["2 a b -1 5 3"], PAIR, [["a"], ["b"]], [1]),
        ("sentence1 sentence2 score", ["a b 4.20345", "b a 5.25"], STARS, [["a", "b"], ["b", "a"]], [4.20345, 5.25]),
    ],
    ids=["single", "pair", "qqp", "qnli", "mnli", "score"],
)
def test_tables_of_d_bert(tmp_path, header, rows, task, texts, labels):
    path, notes = tmp_path / "train.tsv", Notes()
    path.write_text("".join(line.replace(" ", "\t") + "\n" for line in (header, *rows)))
    _, output = run(tmp_path, path, task, reporter=notes)
    examples, tokenizer = load_examples(output, task), load_tokenizer(output)
    assert [[" ".join(words) for words in words_of(column, tokenizer)] for column in examples.texts] == texts
    expected = np.array([row.split()[-task.outputs :] for row in rows], np.float32)
    assert np.array_equal(examples.logits, expected if task.is_score else expected - expected.mean(1, keepdims=True))
    np.testing.assert_allclose(examples.labels, labels, rtol=1e-7)
    assert len(notes.infos) == 1
    kd = path.with_name("kd.tsv")
    kd.write_text("".join(f"{line}\tsource\n".replace(" ", "\t") for line in (header, *rows)))
    run(tmp_path, kd, task, reporter=notes)
    assert len(notes.infos) == 1  # a table of kd's own is not remarked on


@pytest.mark.parametrize(
    ("header", "task", "missing"),
    [
        ("sentence1 sentence2 score", SAME, "logits_0"),
        ("question1 question2 logits_0 logits_1", SINGLE, "sentence"),
        ("sentence label logits_0 logits_1", SAME, "sentence1"),
        ("sentence1 sentence2 logits_0 logits_1", PAIR, "logits_2"),
    ],
)
def test_a_table_of_another_task(tmp_path, header, task, missing):
    (tmp_path / "t.tsv").write_text(header.replace(" ", "\t") + "\n")
    with raising(DataError, key=missing):
        run(tmp_path, tmp_path / "t.tsv", task)


def test_vectors_of_a_file(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("film 1 2 3\ngood 4 5 6\nunseen 7 8 9\n")
    result, output = run(tmp_path, single(tmp_path), encoder=str(file), vectors=str(file))
    vectors, words = load_vectors(output), vocabulary(load_tokenizer(output))
    assert words[6] == "unseen", "a word that has a vector can be read though the joined set has it not"
    found = dict(zip(words, vectors.matrix.tolist(), strict=True))
    known = {"unseen": [7, 8, 9], "film": [1, 2, 3], "good": [4, 5, 6], "[PAD]": [0, 0, 0]}
    assert found | known == found
    others = np.array([found[word] for word in ("a", "bad", "[MASK]")])
    assert np.abs(others).max() <= 0.25 and len(np.unique(others)) == others.size
    assert (result.vectors, result.found) == (f"file {file}", 3) == (vectors.source, vectors.found)
    assert load_file(output / "vectors.safetensors").keys() == {"vectors"}
    file.write_text("x 1 2 3\n")
    with pytest.raises(DataError, match="no word of the vocabulary"):
        run(tmp_path, single(tmp_path), encoder=str(file), vectors=str(file))


@pytest.fixture
def asked(monkeypatch):
    """Stand in for an encoder; return what its vectors are asked for."""
    asked = []

    def made(encoder, words, dimension, *, device, reporter):
        asked.append((encoder, list(words), dimension, device))
        return np.ones((len(words), dimension), np.float32)

    monkeypatch.setattr(encoder_vectors, "encoder_vectors", made)
    monkeypatch.setattr(encoder_vectors, "encoder_words", lambda encoder, reporter: iter(["scene", "film"]))
    monkeypatch.setattr(encoder_vectors, "encoder_pieces", lambda encoder, reporter: iter(["##s", "##ic"]))
    return asked


def test_vectors_and_word_pieces_of_an_encoder(tmp_path, asked):
    result, output = run(tmp_path, single(tmp_path), encoder="some/encoder", vectors="teacher", dimension=5)
    words = vocabulary(load_tokenizer(output))
    assert asked == [("some/encoder", words, 5, "cpu")] and words[6:] == ["scene"]
    assert load_vectors(output).matrix[1:].min() == 1
    assert (result.vectors, result.found) == ("encoder some/encoder", 7)
    file = tmp_path / "v.txt"
    file.write_text("film 1 2 3\n")
    for how, tokens in (
        ({"encoder": "some/encoder", "vectors": "teacher"}, ["film", "##s", "[MASK]"]),
        ({"encoder": str(file), "vectors": str(file)}, ["[MASK]", "[MASK]"]),
        ({}, ["[MASK]", "[MASK]"]),
    ):
        notes = Notes()
        _, output = run(tmp_path, single(tmp_path), word_pieces=True, reporter=notes, **how)
        assert load_tokenizer(output).encode("films scenic").tokens == tokens
        said = any("a word outside the vocabulary is read as [MASK]" in info for info in notes.infos)
        assert said == ("##s" not in tokens)


def test_arrays_of_a_table_their_digest_and_what_is_no_encoded_set(tmp_path):
    _, output = run(tmp_path, single(tmp_path))
    tokenizer = load_tokenizer(output)
    table = pl.DataFrame({"sentence": ["a film", "", "good"], "label": ["0", "1", "1"]})
    examples = encode_table(table, tokenizer, SINGLE, 128)
    assert words_of(examples.texts[0], tokenizer) == [["a", "film"], ["[MASK]"], ["good"]]
    assert (examples.labels.tolist(), examples.logits) == ([0, 1, 1], None)
    for unlabelled in (table.drop("label"), table.with_columns(label=pl.lit(None, pl.String))):
        assert encode_table(unlabelled, tokenizer, SINGLE, 128).labels is None
    with raising(DataError, file="the table"):
        encode_table(table.with_columns(label=pl.Series(["0", None, "1"])), tokenizer, SINGLE, 128)
    seen = {load_examples(output, SINGLE).digest() for _ in range(2)}
    for name in ("sentence.words", "sentence.offsets", "logits", "labels"):
        content = (output / name).read_bytes()
        (output / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
        seen.add(load_examples(output, SINGLE).digest())
    assert len(seen) == 5
    for folder, task in ((output, Task("other", "single", ("0", "1", "2"))), (output, PAIR), (tmp_path / "no", SINGLE)):
        with pytest.raises(DataError, match="no encoded"):
            load_examples(folder, task)
    words = (output / "sentence.words").read_bytes()
    (output / "sentence.words").write_bytes(words[:-2])
    with pytest.raises(DataError, match="no encoded"):
        load_examples(output, SINGLE)
