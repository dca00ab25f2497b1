from functools import partial

import numpy as np
import pytest
from scipy.stats import entropy

from kdcli.api import Task
from kdcli.config.load import load_profile
from kdcli.distillation.choose import by_entropy, in_rounds
from kdcli.distillation.plan import Limits, Speeds, make_plan
from kdcli.errors import ProfileError

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
    with pytest.raises(ProfileError, match="entropy") as caught:
        load_profile(tmp_path / "my.toml", environ={}, flags=score)
    assert caught.value.key == "transfer.choose"
