"""Resampled metrics, against resamples that are drawn row by row and scored by the metrics' own function."""

import numpy as np
import pytest
from scipy import stats

from kdcli.api import Task
from kdcli.tasks import metrics
from kdcli.tasks.metrics import resampled, score

SCORES = Task("stsb", "pair", (), metric="pearson")


def classes(count):
    return Task("x", "single", tuple(map(str, range(count))))


def outputs_of(answers, count):
    return np.eye(count, dtype=np.float32)[np.array(answers)]


class Recorded:
    """The draws of a generator, kept."""

    def __init__(self, random):
        self.random, self.drawn = random, []

    def multinomial(self, *arguments):
        self.drawn.append(self.random.multinomial(*arguments))
        return self.drawn[-1]

    def integers(self, *arguments):
        self.drawn.append(self.random.integers(*arguments))
        return self.drawn[-1]


@pytest.fixture
def recorded(monkeypatch):
    kept = []
    generator = np.random.Generator

    def make(bits):
        kept.append(Recorded(generator(bits)))
        return kept[-1]

    monkeypatch.setattr(metrics.np.random, "Generator", make)
    return kept


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_resample_scores_as_its_rows_do(count, recorded):
    random = np.random.default_rng(count)
    gold = random.integers(0, count, 12)
    answers = [random.integers(0, count, 12) for _ in range(2)]
    found = resampled(classes(count), [outputs_of(one, count) for one in answers], gold, resamples=40)
    cells = sorted(set(zip(gold.tolist(), *(one.tolist() for one in answers), strict=True)))
    assert len(found) == 2
    for number, drawn in enumerate(recorded[0].drawn[0]):
        rows = np.repeat(np.array(cells), drawn, axis=0)
        assert len(rows) == 12
        for model, values in enumerate(found):
            expected = score(classes(count), outputs_of(rows[:, 1 + model], count), rows[:, 0])
            assert {name: one[number] for name, one in values.items()} == pytest.approx(expected)


def test_each_resample_of_scores_too(recorded, monkeypatch):
    monkeypatch.setattr(metrics, "_AT_ONCE", 40)  # several blocks, the last of another size
    random = np.random.default_rng(3)
    gold = random.integers(0, 3, 6).astype(np.float32)
    predicted = [random.normal(size=(6, 1)).astype(np.float32), np.ones((6, 1), np.float32)]
    found = resampled(SCORES, predicted, gold, resamples=50)
    resamples = np.concatenate(recorded[0].drawn)
    assert [len(block) for block in recorded[0].drawn] == [6] * 8 + [2]
    for number, rows in enumerate(resamples):
        for values, one in zip(found, predicted, strict=True):
            expected = score(SCORES, one[rows], gold[rows])
            assert {name: value[number] for name, value in values.items()} == pytest.approx(expected)


def test_the_spread_is_that_of_rows_drawn_one_by_one():
    """Multinomial counts of cells are what drawing rows with replacement gives."""
    random = np.random.default_rng(5)
    gold = random.integers(0, 2, 200)
    answer = np.where(random.random(200) < 0.8, gold, 1 - gold)
    found = resampled(classes(2), [outputs_of(answer, 2)], gold, resamples=4000)[0]
    right = (gold == answer).astype(float)
    plain = np.array([right[random.integers(0, 200, 200)].mean() for _ in range(4000)])
    assert found["accuracy"].mean() == pytest.approx(plain.mean(), abs=0.003)
    assert found["accuracy"].std() == pytest.approx(plain.std(), rel=0.06)
    scipys = stats.bootstrap((right,), np.mean, method="percentile", n_resamples=4000, rng=random).confidence_interval
    assert np.percentile(found["accuracy"], [2.5, 97.5]) == pytest.approx([scipys.low, scipys.high], abs=0.011)


def test_the_same_seed_gives_the_same_resamples():
    gold, outputs = np.array([0, 1, 1, 0, 1]), [outputs_of([0, 1, 0, 0, 1], 2)]
    first, second, third = (resampled(classes(2), outputs, gold, seed=seed)[0]["f1"] for seed in (1, 1, 2))
    assert (first == second).all() and (first != third).any() and len(first) == 1000
