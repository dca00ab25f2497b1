import csv

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from raising import raising

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.files import sha256
from kdcli.tables.text_hash import text_hash
from kdcli.teacher.external import read_external
from kdcli.teacher.join import join
from kdcli.teacher.logits import write_logits

FILMS = Task("films", "single", ("0", "1"), names=("negative", "positive"))
STARS = Task("stars", "single", (), score_range=(0, 5), metric="pearson")
ROWS = [  # the third repeats the first and has another gold label
    ("good ", "original", "1"),
    ("bad", "original", "0"),
    ("good ", "original", "0"),
    ("great film", "original", "1"),
    ("good [MASK]", "lite", ""),
    ("film", "lite", ""),
]
VALUES = {"good ": (-1.25, 2.5), "bad": (0.1, -3.3), "great film": (1e-8, -7), "good [MASK]": (1, 2), "film": (2, 1)}


@pytest.fixture
def transfer(tmp_path):
    lines = ["sentence\tsource\tlabel", *("\t".join(row) for row in ROWS)]
    (tmp_path / "transfer.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "transfer.tsv"


@pytest.fixture
def logits(tmp_path, transfer):
    return write(tmp_path / "logits.safetensors", list(VALUES), FILMS, transfer)


def write(path, texts, task, transfer):
    values = np.array([VALUES[text] for text in texts], np.float32)
    hashes = text_hash([pl.Series(texts)])
    metadata = {"labels": list(task.labels), "transfer_sha256": sha256(transfer)}
    write_logits(path, [(hashes, values, None)], len(texts), metadata)
    return path


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def joined(transfer, logits, task=FILMS, label="teacher", output=None, **more):
    output = output or transfer.parent / "joined.tsv"
    return join(transfer=transfer, logits=logits, task=task, label=label, output=output, **more), output


def test_every_row_gets_the_logits_of_its_text_and_may_keep_its_gold_label(transfer, logits):
    result, output = joined(transfer, logits)
    header, *rows = read(output)
    assert header == ["sentence", "source", "label", "logits_0", "logits_1"]
    assert [(row[0], row[1]) for row in rows] == [(text, source) for text, source, _ in ROWS]
    assert [row[2] for row in rows] == ["1", "0", "1", "0", "1", "0"]
    wanted = np.array([VALUES[text] for text, _, _ in ROWS], np.float32)
    assert np.array_equal(np.array([row[3:] for row in rows], np.float32), wanted)
    assert (result.rows, result.original, result.labels, result.agreement) == (6, 4, {"0": 3, "1": 3}, 0.5)
    result, output = joined(transfer, logits, label="gold")
    assert [row[2] for row in read(output)[1:]] == ["1", "0", "0", "1", "1", "0"]
    assert result.labels == {"0": 3, "1": 3} and result.agreement == 0.5


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations([*VALUES]))
def test_logits_may_come_in_any_order(transfer, logits, tmp_path, texts):
    joined(transfer, logits)
    _, other = joined(transfer, write(tmp_path / "o.safetensors", texts, FILMS, transfer), output=tmp_path / "o.tsv")
    assert other.read_bytes() == (tmp_path / "joined.tsv").read_bytes()


def test_rows_may_come_in_any_order_and_form(transfer, logits, tmp_path, notes):
    table = pl.DataFrame(ROWS[::-1], ["sentence", "source", "label"], orient="row")
    table.write_parquet(tmp_path / "reversed.parquet")
    _, output = joined(tmp_path / "reversed.parquet", logits, output=tmp_path / "joined.parquet", reporter=notes)
    _, straight = joined(transfer, logits)
    rows = [list(row) for row in pl.read_parquet(output).rows()][::-1]
    assert [row[:3] for row in rows] == [row[:3] for row in read(straight)[1:]]
    assert pl.read_parquet_schema(output)["logits_1"] == pl.Float32
    assert any("another transfer set or another form of it" in warning for warning in notes.warnings)


def test_texts_without_logits_logits_that_are_not_finite_and_gold_labels_without_columns(transfer, tmp_path, logits):
    some = write(tmp_path / "some.safetensors", ["good ", "bad", "film"], FILMS, transfer)
    with raising(DataError, "no logits: 'great film'", row=5, file=transfer):
        joined(transfer, some)
    assert not (tmp_path / "joined.tsv").exists()
    hashes = text_hash([pl.Series([*VALUES])])
    values = np.array([*VALUES.values()], np.float32)
    values[1, 0] = np.inf
    write_logits(tmp_path / "l.safetensors", [(hashes, values, None)], len(values), {"labels": ["0", "1"]})
    with raising(DataError, "not finite", row=3):
        joined(transfer, tmp_path / "l.safetensors")
    (tmp_path / "t.txt").write_text("bad\n")
    with pytest.raises(DataError, match="source and label"):
        joined(tmp_path / "t.txt", logits, label="gold")


def test_scores_take_the_logit_or_keep_their_own(tmp_path):
    (tmp_path / "t.tsv").write_text("sentence\tsource\tlabel\na\toriginal\t3.80\nb\tlite\t\n")
    values = np.array([[0.1], [4.5]], np.float32)
    pieces = [(text_hash([pl.Series(["a", "b"])]), values, None)]
    write_logits(tmp_path / "l.safetensors", pieces, 2, {"labels": []})
    result, output = joined(tmp_path / "t.tsv", tmp_path / "l.safetensors", STARS)
    assert [row[2] for row in read(output)[1:]] == ["0.1", "4.5"]
    _, output = joined(tmp_path / "t.tsv", tmp_path / "l.safetensors", STARS, "gold")
    assert [row[2] for row in read(output)[1:]] == ["3.80", "4.5"]
    assert result.labels == {} and result.agreement is None


@pytest.mark.parametrize(("label", "what"), [("", "no gold label"), ("2", "label '2' is not one of the task's")])
def test_gold_labels_must_be_there(transfer, logits, label, what):
    transfer.write_text(transfer.read_text().replace("bad\toriginal\t0", f"bad\toriginal\t{label}"))
    with raising(DataError, what, key="label", row=3):
        joined(transfer, logits, label="gold")
    assert joined(transfer, logits)[0].rows == 6  # the teacher needs none


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_logits_from_elsewhere_by_position_or_text(transfer, logits, tmp_path, notes, suffix):
    texts = [text for text, _, _ in ROWS]
    if suffix == ".npy":
        np.save(tmp_path / "e.npy", np.array([VALUES[text] for text in texts], np.float32))
    else:
        lines = ["negative,positive,sentence", *(f'{a},{b},"{text}"' for text, (a, b) in reversed(VALUES.items()))]
        (tmp_path / "e.csv").write_text("\n".join(lines) + "\n")
    _, output = joined(transfer, tmp_path / f"e{suffix}", output=tmp_path / "e.tsv", reporter=notes)
    _, expected = joined(transfer, logits)
    assert output.read_bytes() == expected.read_bytes()
    assert any("by position" in warning for warning in notes.warnings) == (suffix == ".npy")


def test_positions_run_on_over_batches(tmp_path, notes):
    rows = 70_000  # more than the reader gives at once
    (tmp_path / "t.txt").write_text("".join(f"text {row % 9}\n" for row in range(rows)))
    values = np.random.default_rng(1).normal(size=(rows, 2)).astype(np.float32)
    np.save(tmp_path / "l.npy", values)
    _, output = joined(tmp_path / "t.txt", tmp_path / "l.npy", output=tmp_path / "j.parquet", reporter=notes)
    found = pl.read_parquet(output)
    assert np.array_equal(found.select("logits_0", "logits_1").to_numpy(), values)
    assert set(found["source"]) == {"corpus"}


def test_a_teacher_no_better_than_chance_is_said(transfer, logits, tmp_path, notes):
    for old, new, said in (
        ("", "", ["50.0% of the original rows"]),
        ("good \toriginal\t0", "good \toriginal\t1", ["75.0% of the original rows"]),  # all but one are "1"
        ("great film\toriginal\t1", "great film\toriginal\t0", []),
    ):
        transfer.write_text(transfer.read_text().replace(old, new))
        notes.warnings.clear()
        result, _ = joined(transfer, write(logits, [*VALUES], FILMS, transfer), reporter=notes)
        assert [part in warning for part, warning in zip(said, notes.warnings, strict=True)] == [True] * len(said)
    assert result.agreement == 1


TOPICS = Task("topics", "single", ("a", "b"), metric="micro_f1", multi_label=True)


@pytest.mark.parametrize(("values", "scale"), [("auto", 1), ("probabilities", 1), ("percentages", 100)])
def test_probabilities_of_sets_become_log_odds(tmp_path, notes, values, scale):
    shares = np.array([[0.9, 0.2], [0.1, 0.1], [0.7, 0.8]])
    texts = pl.DataFrame({"sentence": ["one", "two", "three"], "source": "original", "label": ["b|a", "", None]})
    texts.write_parquet(tmp_path / "transfer.parquet")
    pl.DataFrame({"sentence": texts["sentence"], "b": scale * shares[:, 1], "a": scale * shares[:, 0]}).write_csv(
        tmp_path / "own.csv"
    )
    names = {"transfer": "transfer.parquet", "logits": "own.csv", "output": "out.parquet"}
    how = {name: tmp_path / file for name, file in names.items()}
    result = join(task=TOPICS, values=values, reporter=notes, **how)
    found = pl.read_parquet(tmp_path / "out.parquet")
    expected = np.log(shares / (1 - shares))
    assert found.select("logits_0", "logits_1").to_numpy() == pytest.approx(expected, rel=1e-4)
    assert found["label"].to_list() == ["a", "", "a|b"]
    assert result.labels == {"a": 2, "b": 1}
    assert result.agreement == 0.5, "the second of the two rows with gold labels"
    texts[:2].write_parquet(tmp_path / "transfer.parquet")
    join(task=TOPICS, values=values, label="gold", reporter=notes, **how)
    assert pl.read_parquet(tmp_path / "out.parquet")["label"].to_list() == ["b|a", ""]
    texts.with_columns(label=pl.Series(["a", "a|x", ""])).write_parquet(tmp_path / "transfer.parquet")
    with raising(DataError, row=2):
        join(task=TOPICS, values=values, label="gold", reporter=notes, **how)


PARAPHRASES = Task("same", "pair", ("0", "1"))
STAR_PAIRS = Task("stars", "pair", (), score_range=(0, 5), metric="pearson")
LINES = ["a good film", "a [MASK] film", "not very dull", "great", "a good film"]
PAIRS = ["a film\tthe plot", "good\tbad and dull", "the plot\twas boring"]


def save(batches, path, **more):
    """Save what ``finetune.classifier --export`` saves: a list with the NumPy array of each batch."""
    torch.save([np.asarray(batch) for batch in batches], path, **more)
    return path


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "augmented.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


@pytest.mark.parametrize("kind", [np.float32, np.float16])  # confs with fp16 export half precision
@pytest.mark.parametrize("zipped", [True, False])  # PyTorch before 1.6 had another form
def test_logits_of_the_classifier(tmp_path, lines, notes, kind, zipped):
    values = np.arange(10, dtype=kind).reshape(5, 2) - 4.5
    logits = save([values[:2], values[2:4], values[4:]], tmp_path / "l.pt", _use_new_zipfile_serialization=zipped)
    found = read_external(logits, transfer=lines, task=FILMS, reporter=notes)
    assert found.logits.dtype == np.float32 and np.array_equal(found.logits, values.astype(np.float32))


def test_a_joined_table_is_a_transfer_set_and_its_logits_or_scores(tmp_path, notes):
    table = tmp_path / "qqp.tsv"
    header = "is_duplicate\tquestion1\tquestion2\tlogits_0\tlogits_1"
    values = np.array([[1.5, -2.25], [0.125, 3], [-1, 0.5]], np.float32)
    made = [f"0\t{pair}\t{a}\t{b}" for pair, (a, b) in zip(PAIRS, values.tolist(), strict=True)]
    table.write_text("\n".join([header, *made]) + "\n")
    shuffled, output = tmp_path / "shuffled.tsv", tmp_path / "joined.tsv"
    shuffled.write_text("\n".join([header, *reversed(made)]) + "\n")
    join(transfer=table, logits=shuffled, task=PARAPHRASES, output=output, reporter=notes)
    _, *found = read(output)
    assert ["\t".join(row[:2]) for row in found] == PAIRS
    assert np.array_equal(np.array([row[4:] for row in found], np.float32), values)
    assert [row[3] for row in found] == ["0", "1", "1"]  # is_duplicate is 0 whatever the teacher says
    assert not notes.warnings  # by text
    table = tmp_path / "sts.tsv"
    table.write_text("sentence1\tsentence2\tscore\n" + "".join(f"{pair}\t{n}.25\n" for n, pair in enumerate(PAIRS)))
    found = read_external(table, transfer=table, task=STAR_PAIRS, reporter=notes)
    assert found.logits.tolist() == [[0.25], [1.25], [2.25]] and found.hashes is not None
