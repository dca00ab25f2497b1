"""Joined sets as d-bert's ``join_logits`` writes them, written here in the same form."""

from itertools import pairwise

import numpy as np
import pytest

from kdcli.api import QuietReporter, Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError
from kdcli.student.encoding import encode, load_examples, load_tokenizer
from kdcli.student.joined import open_joined
from kdcli.student.vocabulary import vocabulary

FILMS = Task("films", "single", ("0", "1"))
SAME = Task("same", "pair", ("0", "1"))
QNLI = Task("qnli", "pair", ("entailment", "not_entailment"))
MNLI = Task("mnli", "pair", ("contradiction", "entailment", "neutral"))
STARS = Task("stars", "pair", (), score_range=(0, 5), metric="pearson")


class Notes(QuietReporter):
    def __init__(self):
        self.infos = []

    def info(self, message):
        self.infos.append(message)


def encoded(tmp_path, header, rows, task):
    """Return the texts, logits and labels that a student gets from a table."""
    path, notes = tmp_path / "train.tsv", Notes()
    path.write_text("\n".join(["\t".join(header), *("\t".join(map(str, row)) for row in rows)]) + "\n")
    encode(joined=path, task=task, settings=StudentSettings(), seed=1, output=tmp_path / "encoded", reporter=notes)
    examples, names = load_examples(tmp_path / "encoded", task), vocabulary(load_tokenizer(tmp_path / "encoded"))
    texts = [
        [" ".join(names[word] for word in text.words[begin:end]) for begin, end in pairwise(text.offsets)]
        for text in examples.texts
    ]
    return texts, examples, notes.infos


@pytest.mark.parametrize(
    ("header", "row", "task", "label"),
    [
        (["label", "sentence", "logits_0", "logits_1"], lambda choice: (choice, "a film"), FILMS, True),
        (["sentence1", "sentence2", "logits_0", "logits_1"], lambda _: ("a", "b c"), SAME, False),
        (["is_duplicate", "question1", "question2", "logits_0", "logits_1"], lambda _: (0, "a", "b c"), SAME, False),
        (
            ["index", "question", "sentence", "label", "logits_0", "logits_1"],
            lambda choice: (0, "a", "b c", choice),
            QNLI,
            True,
        ),
    ],
)
def test_the_tables_of_join_logits(tmp_path, header, row, task, label):
    logits = [(-1.5, 2.25), (0.12346, -3), (0.5, 0.75)]
    choices = [1, 0, 1]
    rows = [(*row(choice), *pair) for choice, pair in zip(choices, logits, strict=True)]
    texts, examples, infos = encoded(tmp_path, header, rows, task)
    assert texts == ([["a film"] * 3] if task.kind == "single" else [["a"] * 3, ["b c"] * 3])
    assert np.array_equal(examples.logits, np.array(logits, np.float32))
    assert examples.labels.tolist() == choices
    assert "all its rows count as fabricated" in infos[0] and ("in 'label'" in infos[0]) == label


def test_three_classes(tmp_path):
    header = ["gold_label", "sentence1", "sentence2", "logits_0", "logits_1", "logits_2"]
    _, examples, _ = encoded(tmp_path, header, [(2, "a", "b", -1, 0.5, 3), (0, "c", "d", 4, 0.5, 3)], MNLI)
    assert examples.labels.tolist() == [2, 0] and examples.logits.shape == (2, 3)


def test_a_score(tmp_path):
    rows = [("a", "b", 4.20345), ("c", "d", 5.25)]  # a teacher's own score may leave the task's range
    _, examples, _ = encoded(tmp_path, ["sentence1", "sentence2", "score"], rows, STARS)
    assert examples.logits.tolist() == [[np.float32(4.20345)], [5.25]]
    assert examples.labels.tolist() == [np.float32(4.20345), 5.25]


def test_a_label_that_is_none_of_the_tasks(tmp_path):
    header = ["label", "sentence", "logits_0", "logits_1"]
    with pytest.raises(DataError, match="'2'") as caught:
        encoded(tmp_path, header, [(1, "a", 0, 1), (2, "b", 0, 1)], FILMS)
    assert caught.value.row == 3


@pytest.mark.parametrize(
    ("header", "task", "missing"),
    [
        ("sentence1\tsentence2\tscore", SAME, "logits_0"),
        ("question1\tquestion2\tlogits_0\tlogits_1", FILMS, "sentence"),
        ("sentence\tlabel\tlogits_0\tlogits_1", SAME, "sentence1"),
        ("sentence1\tsentence2\tlogits_0\tlogits_1", MNLI, "logits_2"),
    ],
)
def test_a_table_of_another_task(tmp_path, header, task, missing):
    (tmp_path / "t.tsv").write_text(header + "\n")
    with pytest.raises(DataError, match=f"no column '{missing}'"):
        open_joined(tmp_path / "t.tsv", task, QuietReporter())


def test_a_table_of_kd_is_not_remarked_on(tmp_path):
    notes = Notes()
    (tmp_path / "t.tsv").write_text("sentence\tsource\tlogits_0\tlogits_1\na\tlite\t0\t1\n")
    opened = open_joined(tmp_path / "t.tsv", FILMS, notes)
    assert not notes.infos
    assert next(opened.batches())[2] is None  # no label of the set's own
