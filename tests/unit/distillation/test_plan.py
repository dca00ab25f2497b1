from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raising import raising
from scipy.stats import entropy

from kdcli.api import Task
from kdcli.config.load import load_profile
from kdcli.distillation.choose import by_entropy, in_rounds
from kdcli.distillation.plan import Limits, Speeds, make_plan
from kdcli.distillation.texts import held_out
from kdcli.errors import ProfileError, UsageError

SETTINGS = load_profile("distil", environ={}, uses=()).settings
SPEEDS = Speeds(0.01, 0.001, 0.001)
BATCH = SETTINGS.student.batch_size


@given(st.floats(2, 600), st.integers(1000, 10**6), st.floats(1e-5, 0.5), st.floats(1e-5, 5e-3), st.floats(1e-5, 5e-3))
def test_a_plan_fills_the_time_and_no_more(minutes, texts, text, word, row):
    plan = make_plan(texts, 5.0, Speeds(text, word, row), Limits(minutes), SETTINGS)
    train = plan.texts - sum(held_out(plan.texts))
    rows = train * (1 + plan.n_iter)
    # What the plan takes, reckoned anew from its numbers.
    teacher = (rows + plan.texts - train) * text
    taken = 5.0 + 20.0 + teacher + plan.words * word + plan.updates * BATCH * row
    assert plan.words == SETTINGS.student.max_size or plan.words * word <= max(6 * minutes, 2_000 * word)
    assert taken == pytest.approx(sum(plan.seconds.values()))
    least = plan.updates == 20 or plan.texts == 128
    most = plan.epochs == 10  # more texts, or one more for each, would take too long
    assert least or taken <= 60 * minutes * 1.02
    assert least or most or taken >= 60 * minutes * 0.85
    assert plan.texts <= texts and (least or plan.epochs == -(-plan.updates * BATCH // rows))


def test_more_time_buys_more_texts_then_fabricated_ones_then_epochs():
    plans = [make_plan(10_000, 0, SPEEDS, Limits(minutes), SETTINGS) for minutes in (2, 4.7, 20, 2000)]
    assert plans[0].texts < plans[1].texts == plans[2].texts == plans[3].texts == 10_000
    assert [plan.n_iter for plan in plans] == [0, 1, 10, 20]
    assert plans[3].epochs == 10 > plans[2].epochs
    plan = make_plan(10_000, 30, SPEEDS, Limits(0.1), SETTINGS)
    assert (plan.texts, plan.n_iter, plan.updates) == (128, 0, 20)
    assert sum(plan.seconds.values()) > 6


def test_fabricated_texts_are_shorter_than_those_they_are_made_from():
    shorter = Speeds(0.01, 0.001, 0.001, made=0.8)
    plan = make_plan(10_000, 0, shorter, Limits(20), SETTINGS)
    assert plan.n_iter > make_plan(10_000, 0, SPEEDS, Limits(20), SETTINGS).n_iter
    train = 10_000 - sum(held_out(10_000))
    long = train * (1 + plan.n_iter * 0.8)
    assert plan.seconds["teacher"] == pytest.approx(0.01 * (long + 10_000 - train))
    assert plan.seconds["student"] == pytest.approx(0.001 * plan.updates * BATCH * long / (train + plan.n_iter * train))
    assert 0.95 * 20 * 60 < sum(plan.seconds.values()) <= 1.02 * 20 * 60


def test_without_a_limit_all_texts_are_taken_and_few_are_multiplied():
    assert make_plan(200_000, 0, SPEEDS, Limits(), SETTINGS).n_iter == 0
    alone = make_plan(1_000, 3, SPEEDS, Limits(n_iter=0), SETTINGS)
    wanted = make_plan(1_000, 0, SPEEDS, Limits(60, n_iter=2), SETTINGS)
    assert (alone.n_iter, alone.updates, wanted.n_iter) == (0, SETTINGS.student.epochs * 4, 2)
    assert sum(alone.seconds.values()) == pytest.approx(
        3 + 20 + 1_000 * 0.01 + alone.words * 0.001 + alone.updates * BATCH * 0.001
    )
    small = make_plan(1_000, 0, SPEEDS, Limits(), SETTINGS)
    assert (small.texts, small.n_iter, small.epochs) == (1_000, 20, SETTINGS.student.epochs)
    assert small.updates == 4 * -(-900 * 21 // BATCH)


@given(st.integers(10, 10**5), st.integers(210, 10**5), st.sampled_from([None, 0, 3, 20]), st.floats(0.1, 600))
def test_the_teacher_labels_no_more_than_the_budget(texts, budget, n_iter, minutes):
    limits = Limits(None, budget, n_iter)
    limits.check(SETTINGS)
    taken = min(texts, limits.most_texts())
    for plan in (
        make_plan(taken, 0, None, limits, SETTINGS),
        make_plan(taken, 0, SPEEDS, Limits(minutes, budget, n_iter), SETTINGS),
    ):
        train = plan.texts - sum(held_out(plan.texts))
        assert plan.labelled == plan.texts + train * plan.n_iter <= budget
        assert plan.n_iter == (n_iter if n_iter is not None else plan.n_iter)
    if n_iter is None and taken < texts:  # real texts come before fabricated ones
        assert (make_plan(taken, 0, None, limits, SETTINGS).labelled, plan.n_iter) == (budget, 0)


def test_a_budget_that_is_too_small_or_of_other_texts():
    assert [Limits(None, 40, n_iter).most_texts() for n_iter in (None, 0, 1, 3)] == [40, 40, 20, 10]
    for budget, n_iter in ((-1, None), (0, None), (9, None), (39, 3)):
        with pytest.raises(UsageError):
            Limits(None, budget, n_iter).check(SETTINGS)
    corpus = SETTINGS.model_copy(update={"transfer": SETTINGS.transfer.model_copy(update={"method": "lite+corpus"})})
    with pytest.raises(UsageError, match="method"):
        Limits(None, 1_000).check(corpus)


SINGLE = Task("films", "single", ("bad", "mixed", "good"))
MANY = Task("topics", "single", ("a", "b"), multi_label=True)


@pytest.mark.parametrize("count", [40, 99])
def test_a_quarter_is_random_and_the_rest_drawn_from_fresh_rows_in_two_rounds(count):
    order, seen = np.random.default_rng(3).permutation(300), []

    def read(rows, others):
        seen.append((rows, others))
        return others[:, None].astype(np.float32)  # the logit is the row's number

    def draw(logits, wanted, draws):
        return np.argsort(-logits[:, 0])[:wanted]

    rows = in_rounds(order, count, read, draw, seed=1)
    assert len(set(rows.tolist())) == count and set(rows) <= set(order)
    assert [len(labelled) for labelled, _ in seen] == [count // 4, count // 2]
    assert np.array_equal(rows[: count // 4], order[: count // 4])
    for labelled, others in seen:
        assert not set(labelled) & set(others) and len(set(others)) == len(others)
    first = seen[0][1]
    assert set(rows[count // 4 : count // 2]) == set(np.sort(first)[::-1][: count // 2 - count // 4])
    assert np.array_equal(rows, in_rounds(order, count, read, draw, seed=1))
    assert not np.array_equal(rows, in_rounds(order, count, read, draw, seed=2))


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


@pytest.mark.parametrize("task", [SINGLE, MANY])
def test_rows_are_drawn_in_proportion_to_their_entropy(task):
    logits = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 1.0], [40.0, 0.0, -40.0]])[:, : task.outputs].astype(np.float32)
    if task.multi_label:
        logits[2] = 40, -40
        sure = [entropy([sigmoid(value), sigmoid(-value)]) for value in logits.ravel()]
        wanted = np.reshape(sure, logits.shape).sum(1)
    else:
        wanted = entropy(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), axis=1)
    draws = np.random.default_rng(1)
    found = np.bincount([by_entropy(logits, 1, draws, task)[0] for _ in range(4000)], minlength=3) / 4000
    assert found[2] == 0 and found == pytest.approx(wanted / wanted.sum(), abs=0.03)
    assert sorted(by_entropy(logits, 3, draws, task)) == [0, 1, 2]


def test_a_choice_takes_time_in_the_plan():
    load = partial(load_profile, "distil", environ={}, uses=())
    alone, chosen = (load(flags={"transfer.choose": way}).settings for way in ("random", "entropy"))
    speeds = Speeds(0.01, 0.001, 0.001)
    budget, minutes = Limits(budget=4_000), Limits(2)
    plain = make_plan(4_000, 0, speeds, budget, alone)
    plan = make_plan(4_000, 0, speeds, budget, chosen, more=True)
    own = plan.seconds.pop("choice")
    assert plan == plain and own == pytest.approx(4 * 0.001 * (4_000 - 400))
    assert make_plan(4_000, 0, speeds, budget, chosen) == plain  # there is nothing to choose
    assert 0.85 * 120 <= sum(make_plan(20_000, 0, speeds, minutes, chosen).seconds.values()) <= 1.02 * 120


def test_a_score_has_no_entropy(tmp_path):
    (tmp_path / "my.toml").write_text('extends = "distil"\n[transfer]\nchoose = "entropy"\n')
    score = {"task.labels": (), "task.names": (), "task.metric": "pearson"}
    with raising(ProfileError, "entropy", key="transfer.choose"):
        load_profile(tmp_path / "my.toml", environ={}, flags=score)
