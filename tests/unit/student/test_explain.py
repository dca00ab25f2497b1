import numpy as np
import pytest
import torch
from made_student import PAIR, SCORE, SINGLE, SMALL, TEXTS, columns, make_student
from raising import raising

from kdcli.api import Task
from kdcli.errors import KdError, UsageError
from kdcli.student import explain
from kdcli.student.student import Student, load_student

MULTI = Task("toy", "single", ("c", "a", "b"), metric="micro_f1", multi_label=True, thresholds=(0.5, 0.4, 0.6))
PIECES = ["str", "un", "##heard", "##angers"]
WRITTEN = ["the film was very good .", "unheard, strangers good", "THE PLOT,the  Wärm", "good [MASK]!seen", "seen", " "]
SPANS = "the film was very good .|unheard , strangers good|THE PLOT , the Wärm|good [MASK] ! seen|seen|"
"""The words of each."""


def check(student, found, texts, output):
    """Compare each effect with the prediction for the text that is written with masks."""
    every = [*found.words, *found.pairs]
    changed = [list(texts) for _ in every]
    for row, effect in zip(changed, every, strict=True):
        text = row[effect.column]
        assert text[effect.begin : effect.end] == effect.text
        inside = [one for one in found.words if one.column == effect.column]
        for word in reversed([one for one in inside if effect.begin <= one.begin < effect.end]):
            text = f"{text[: word.begin]}[MASK]{text[word.end :]}"
        row[effect.column] = text
    logits = student.logits(list(map(list, zip(texts, *changed, strict=True))))
    assert found.logit == pytest.approx(logits[0, output], abs=1e-5)
    lost = logits[0, output] - logits[1:, output]
    np.testing.assert_allclose([one.logit for one in every], lost, atol=1e-5)
    if student.task.is_score:
        assert {one.probability for one in (found, *every)} == {None} and found.label == ""
        return
    odds = np.exp(logits.astype(np.float64))
    shares = (odds / (1 + odds) if student.task.multi_label else odds / odds.sum(1, keepdims=True))[:, output]
    assert found.probability == pytest.approx(shares[0], abs=1e-5)
    np.testing.assert_allclose([one.probability for one in every], shares[0] - shares[1:], atol=1e-5)
    assert found.label == student.task.labels[output]


@pytest.mark.parametrize("task", [SINGLE, PAIR, SCORE, MULTI], ids=["single", "pair", "score", "multi"])
@pytest.mark.parametrize("plugin", SMALL)
def test_effects_are_those_of_texts_written_with_masks(tmp_path, task, plugin):
    student = load_student(make_student(tmp_path / "student", task, plugin=plugin, pieces=PIECES))
    pair = len(task.columns) == 2
    texts = columns(task, WRITTEN)
    rows = list(zip(*texts, strict=True))
    explained = student.explain(rows if pair else texts[0])
    best = student.logits(texts).argmax(1)
    spans = [[words.split() for words in column] for column in columns(task, SPANS.split("|"))]
    for found, row, output, *own in zip(explained, rows, best, *spans, strict=True):
        assert [one.text for one in found.words] == [word for words in own for word in words]
        assert len(found.pairs) == sum(max(0, len(words) - 1) for words in own)
        assert found.texts == row
        check(student, found, row, output)
        assert ["".join(piece for piece, _ in pieces) for pieces in found.marked()] == list(row)
        strong = [abs(effect) for pieces in found.marked() for _, effect in pieces]
        assert max(strong, default=0) in (0, 1)
    assert any(abs(word.logit) > 0.05 for found in explained for word in found.words)
    assert all(not found.pairs for found in student.explain(rows if pair else texts[0], pairs=False))


def test_a_word_in_pieces_is_masked_as_one_and_a_label_is_chosen_by_either_of_its_names(tmp_path):
    student = load_student(make_student(tmp_path / "student", pieces=PIECES))
    text = "strangers " + "the film was very good not bad but warm and cold"  # 13 ids, and the student reads 12
    (found,) = student.explain([text])
    assert [word.text for word in found.words] == text.split()[:11] and len(found.pairs) == 10
    check(student, found, (text,), int(student.logits([[text]]).argmax()))
    assert found.words[0].text == "strangers" and found.words[0].logit != 0
    student = load_student(make_student(tmp_path / "student"))
    for name, output in {"no": 0, "bad": 0, "yes": 1, "good": 1}.items():
        (found,) = student.explain(TEXTS[:1], name)
        check(student, found, (TEXTS[0],), output)
    with raising(UsageError, hint="no, yes"):
        student.explain(TEXTS, "maybe")
    with pytest.raises(UsageError):
        load_student(make_student(tmp_path / "score", SCORE)).explain([("a", "b")], "no")
    assert student.explain([]) == []


@pytest.fixture
def asked(monkeypatch):
    """The sizes of the batches of texts that a student is asked for, in rows and in characters."""
    found, logits = [], Student.logits

    def watched(self, columns):
        found.append((len(columns[0]), sum(map(len, columns[0]))))
        return logits(self, columns)

    monkeypatch.setattr(Student, "logits", watched)
    return found


def test_a_long_text_costs_no_more_than_what_is_read_of_it(tmp_path, asked):
    student = load_student(make_student(tmp_path / "student", pieces=PIECES))
    (found,) = student.explain(["strangers good film " * 20_000])
    assert asked == [(18, asked[0][1])] and asked[0][1] < 18 * 5000
    assert len(found.words) == 9 and len(found.pairs) == 8 and found.marked()[0][-1][1] == 0
    check(student, found, ("strangers good film " * 20,), int(student.logits([["strangers good film " * 20]]).argmax()))


def test_masked_texts_are_computed_in_batches_of_bounded_size(tmp_path, monkeypatch, asked):
    student = load_student(make_student(tmp_path / "student"))
    whole = student.explain(TEXTS)
    assert len(asked) == 1
    monkeypatch.setattr(explain, "CELLS", 7 * 412)
    for one, other in zip(student.explain(TEXTS), whole, strict=True):
        words = [found.logit for found in other.words]
        np.testing.assert_allclose([found.logit for found in one.words], words, atol=1e-5)
    assert {rows for rows, _ in asked[1:-1]} == {7} and sum(rows for rows, _ in asked[1:]) == asked[0][0]


def test_a_batch_that_does_not_fit_is_halved(tmp_path, monkeypatch):
    folder = make_student(tmp_path / "student")
    student = load_student(folder, torch=True)
    real, sizes = student._module_function, []

    def compute(words, lengths):
        sizes.append(len(words[0]))
        if len(words[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(words, lengths)

    student.__dict__["_module_function"] = compute
    found = student.explain(TEXTS[:1])
    assert sizes[0] == 12 and max(sizes[2:]) <= 3
    expected = [word.logit for word in load_student(folder).explain(TEXTS[:1])[0].words]
    np.testing.assert_allclose([word.logit for word in found[0].words], expected, atol=1e-5)
    student.__dict__["_module_function"] = lambda words, lengths: compute([[0] * 6], lengths)
    with pytest.raises(KdError, match="not enough memory"):
        student.explain(TEXTS[:1])
