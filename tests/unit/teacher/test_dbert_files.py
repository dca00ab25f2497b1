"""Files as d-bert's tools write them, written here in the same form."""

import numpy as np
import pytest
import torch

from kdcli.api import Task
from kdcli.errors import DataError
from kdcli.tables.read import ROW_NUMBER, read_table
from kdcli.teacher.external import read_external
from kdcli.teacher.join import join

FILMS = Task("films", "single", ("0", "1"), names=("negative", "positive"))
SAME = Task("same", "pair", ("0", "1"))
STARS = Task("stars", "pair", (), score_range=(0, 5), metric="pearson")
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


def rows(path):
    return read_table(path).frame().drop(ROW_NUMBER).to_dicts()


@pytest.mark.parametrize("kind", [np.float32, np.float16])  # confs with fp16 export half precision
@pytest.mark.parametrize("zipped", [True, False])  # PyTorch before 1.6 had another form
def test_logits_of_the_classifier(tmp_path, lines, notes, kind, zipped):
    values = np.arange(10, dtype=kind).reshape(5, 2) - 4.5
    logits = save([values[:2], values[2:4], values[4:]], tmp_path / "l.pt", _use_new_zipfile_serialization=zipped)
    found = read_external(logits, transfer=lines, task=FILMS, reporter=notes)
    assert found.logits.dtype == np.float32 and np.array_equal(found.logits, values.astype(np.float32))


def test_a_score_and_a_single_batch(tmp_path, notes):
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("".join(f"{pair}\n" for pair in PAIRS))
    logits = save([np.array([[0.5], [4.25], [2]], np.float32)], tmp_path / "l.pt")
    output = tmp_path / "joined.tsv"
    result = join(transfer=pairs, logits=logits, task=STARS, output=output, reporter=notes)
    assert (result.rows, result.original) == (3, 0)
    assert [(row["sentence1"], row["sentence2"], row["label"]) for row in rows(output)] == [
        (*pair.split("\t"), score) for pair, score in zip(PAIRS, ["0.5", "4.25", "2"], strict=True)
    ]


def test_a_header_is_no_row(tmp_path, notes):
    (tmp_path / "t.txt").write_text("sentence\n" + "".join(f"{line}\n" for line in LINES))
    logits = save([np.full((5, 2), -1, np.float32)], tmp_path / "l.pt")
    output = tmp_path / "joined.tsv"
    join(transfer=tmp_path / "t.txt", logits=logits, task=FILMS, output=output, reporter=notes)
    assert [(row["sentence"], row["source"]) for row in rows(output)] == [(line, "corpus") for line in LINES]
    assert any("no column source" in note for note in notes.infos)
    logits = save([np.full((6, 2), -1, np.float32)], tmp_path / "six.pt")
    with pytest.raises(DataError, match="6 rows of logits, and the transfer set has 5"):
        join(transfer=tmp_path / "t.txt", logits=logits, task=FILMS, output=tmp_path / "o.tsv", reporter=notes)


def test_a_joined_table_is_a_transfer_set_and_its_logits(tmp_path, notes):
    table = tmp_path / "qqp.tsv"
    header = "is_duplicate\tquestion1\tquestion2\tlogits_0\tlogits_1"
    values = np.array([[1.5, -2.25], [0.125, 3], [-1, 0.5]], np.float32)
    made = [f"0\t{pair}\t{a}\t{b}" for pair, (a, b) in zip(PAIRS, values.tolist(), strict=True)]
    table.write_text("\n".join([header, *made]) + "\n")
    shuffled = tmp_path / "shuffled.tsv"
    shuffled.write_text("\n".join([header, *reversed(made)]) + "\n")
    output = tmp_path / "joined.tsv"
    join(transfer=table, logits=shuffled, task=SAME, output=output, reporter=notes)
    assert [(row["sentence1"], row["sentence2"]) for row in rows(output)] == [tuple(pair.split("\t")) for pair in PAIRS]
    found = [[float(row["logits_0"]), float(row["logits_1"])] for row in rows(output)]
    assert np.array_equal(np.array(found, np.float32), values)
    assert [row["label"] for row in rows(output)] == ["0", "1", "1"]  # is_duplicate is 0 whatever the teacher says
    assert not notes.warnings  # by text


def test_the_score_of_a_joined_table(tmp_path, notes):
    table = tmp_path / "sts.tsv"
    table.write_text("sentence1\tsentence2\tscore\n" + "".join(f"{pair}\t{n}.25\n" for n, pair in enumerate(PAIRS)))
    found = read_external(table, transfer=table, task=STARS, reporter=notes)
    assert found.logits.tolist() == [[0.25], [1.25], [2.25]] and found.hashes is not None
