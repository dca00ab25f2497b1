from functools import partial

import numpy as np
import polars as pl
import pytest
from hypothesis import given, strategies as st
from notes import Notes
from raising import raising
from scipy.special import softmax
from scipy.stats import entropy

from kdcli.api import Task
from kdcli.config.load import load_profile
from kdcli.config.schema import TaskSettings
from kdcli.distillation.choose import by_entropy, in_rounds, read_others
from kdcli.distillation.derive import count_cut, student_settings
from kdcli.distillation.plan import Limits, Speeds, make_plan, outlook
from kdcli.distillation.texts import Columns, find_columns, find_files, first_texts, held_out, take_texts
from kdcli.errors import DataError, MissingError, ProfileError, UsageError

TASK = Task("films", "single", ("negative", "positive"))
TEXTS = [f"a film of number {number}" for number in range(200)]
TABLE = {
    "id": [f"R-{number}" for number in range(5)],
    "date": ["2026-01-02"] * 5,
    "stars": ["1", "5", "3", "2", "4"],
    "city": ["Rome", "Oslo", "Rome", "Bonn", "Oslo"],
    "words": ["a good film", "a dull one", "not bad at all", "what a film, what a night", "never again, please"],
}


def write(path, columns):
    pl.DataFrame(columns).write_csv(path)
    return path


def settings(columns=("sentence",), label=""):
    return TaskSettings(labels=("negative", "positive"), text_columns=columns, label_column=label)


def take(tmp_path, files, *, limit=0, label="", notes=None):
    how = {"labelled": bool(label), "limit": limit, "seed": 1, "reporter": notes or Notes()}
    taken = take_texts(files, settings(("text",), label), TASK, **how)
    counts = taken.divide(len(taken.rows), TASK, tmp_path / "out")
    return counts, {path.stem: pl.read_parquet(path) for path in (tmp_path / "out").glob("*.parquet")}


def test_the_columns_of_texts_and_labels_are_found_and_a_doubt_is_an_error(tmp_path):
    assert find_columns(write(tmp_path / "a.csv", TABLE)) == Columns(("words",), None)
    assert find_columns(write(tmp_path / "a.csv", {"n": ["1", "2"], "w": ["good", "bad"]})).texts == ("w",)
    table = write(tmp_path / "a.csv", {**TABLE, "Review": TABLE["words"][::-1], "label": list("01010")})
    assert find_columns(table) == Columns(("Review",), "label")
    assert find_columns(table, label_col="none") == Columns(("Review",), None)
    assert find_columns(table, text_col="words", text2_col="Review") == Columns(("words", "Review"), "label")
    assert find_columns(table, labels=("Rome", "Oslo", "Bonn", "Bern")) == Columns(("Review",), "city")
    assert find_columns(table, labels=("Rome", "Oslo")) == Columns(("Review",), "label")
    assert find_columns(table, labels=("Rome", "Oslo", "Bonn"), label_col="none") == Columns(("Review",), None)
    table = write(tmp_path / "a.csv", {**TABLE, "more": TABLE["words"][::-1]})
    with raising(DataError, "2 columns may hold the texts: words, more", hint=("words (a good film)", "--text-col")):
        find_columns(table)
    with raising(DataError, "no column 'text'", key="text"):
        find_columns(table, text_col="text")
    numbers = {"a": ["1", "2.5"], "b": ["2026-01-02", "2026-02-03"]}
    with pytest.raises(DataError, match="no column holds texts"):
        find_columns(write(tmp_path / "a.csv", numbers))
    with raising(DataError, "this column holds no texts", key="a"):
        find_columns(write(tmp_path / "a.csv", numbers), text_col="a")


def test_files_folders_patterns_and_a_dataset_of_the_hub(tmp_path, monkeypatch):
    for name in ("b.txt", "a.csv", "notes.md"):
        (tmp_path / name).write_text("text\nx y\n")
    both = [tmp_path / "a.csv", tmp_path / "b.txt"]
    assert find_files([str(tmp_path)]) == both
    assert find_files([f"{tmp_path}/*.txt", str(tmp_path / "b.txt")]) == [tmp_path / "b.txt"]
    (tmp_path / "empty").mkdir()
    for name, error in (("empty", DataError), ("*.json", DataError), ("none.csv", MissingError)):
        with pytest.raises(error):
            find_files([str(tmp_path / name)])
    for name in ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pl.DataFrame({"text": TEXTS[:3]}).write_parquet(tmp_path / name)
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: asked.update(how) or str(tmp_path))
    assert find_files(["some/reviews"], offline=True) == [tmp_path / "data/train-00000-of-00001.parquet"]
    assert asked["repo_type"] == "dataset" and asked["local_files_only"]
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: 1 / 0)
    with pytest.raises(MissingError, match="some/reviews"):
        find_files(["some/reviews"])


def test_copies_never_stand_on_two_sides_and_everything_is_counted(tmp_path):
    copies = [*TEXTS, *(text.upper() for text in TEXTS[:50]), *(f"  {text} " for text in TEXTS[:30]), "", "  "]
    notes = Notes()
    counts, sides = take(tmp_path, [write(tmp_path / "a.csv", {"text": copies, "n": [1] * len(copies)})], notes=notes)
    assert (counts.read, counts.duplicates, counts.beyond, counts.labelled) == (280, 80, 0, False)
    assert (counts.dev, counts.test, counts.train) == (20, 0, 180)
    every = [text.strip().lower() for side in sides.values() for text in side["sentence"]]
    assert sorted(every) == sorted(TEXTS)
    assert any("2 rows with an empty text are left out" in warning for warning in notes.warnings)


def test_the_texts_that_are_taken_do_not_depend_on_their_order_and_files(tmp_path):
    counts, sides = take(tmp_path, [write(tmp_path / "a.csv", {"text": TEXTS})], limit=40)
    assert (counts.beyond, counts.dev + counts.train) == (160, 40)
    parts = [write(tmp_path / "b.csv", {"text": TEXTS[:70:-1]}), write(tmp_path / "c.csv", {"text": TEXTS[:71]})]
    assert take(tmp_path, parts, limit=40)[1]["train"].equals(sides["train"])
    smaller = take(tmp_path, parts, limit=20)[1]
    assert set(smaller["train"]["sentence"]) < {text for side in sides.values() for text in side["sentence"]}


def test_each_side_has_its_share_of_every_label_and_rows_without_one_are_left_out(tmp_path):
    labels = ["negative"] * 20 + ["positive"] * 180
    table = write(tmp_path / "a.csv", {"text": TEXTS, "label": labels})
    counts, sides = take(tmp_path, [table], label="label")
    assert counts.labelled
    found = {name: side["label"].value_counts().sort("label")["count"].to_list() for name, side in sides.items()}
    assert found == {"dev": [2, 18], "train": [18, 162]}
    gold = dict(zip(TEXTS, labels, strict=True))
    assert all(gold[text] == label for side in sides.values() for text, label in side.iter_rows())
    for some, taken in ((["negative", "positive"] * 95 + [""] * 10, 190), (["negative"] * 20 + [""] * 180, 200)):
        counts, sides = take(tmp_path, [write(table, {"text": TEXTS, "label": some})], label="label")
        assert (counts.labelled, counts.train + counts.dev) == (taken == 190, taken)
    assert sides["dev"].columns == ["sentence"]


def test_texts_that_cannot_be_taken_and_empty_ones(tmp_path):
    labels = ["negative", "positive"] * 99 + ["neutral", "positive"]
    with raising(DataError, "neutral", row=200, key="label", hint="--label-col none"):
        take(tmp_path, [write(tmp_path / "a.csv", {"text": TEXTS, "label": labels})], label="label")
    numbers = tmp_path / "numbers.txt"
    numbers.write_text("12\n3.5\n" * 20)
    with raising(DataError, "numbers"):
        find_columns(numbers)
    with pytest.raises(DataError, match="200 texts, of which 1 are different"):
        take(tmp_path, [write(tmp_path / "a.csv", {"text": ["all equal"] * 200, "n": [1] * 200})])
    table = write(tmp_path / "a.csv", {"text": ["", "a film", " ", "another"]})
    assert first_texts(table, settings(("text",)), TASK, 5)["sentence"].to_list() == ["a film", "another"]
    with pytest.raises(DataError, match="no texts"):
        first_texts(write(tmp_path / "b.csv", {"text": ["", " "]}), settings(("text",)), TASK, 5)


def test_a_third_part_is_held_out_of_many_texts():
    found = [held_out(texts) for texts in (10, 4_999, 5_000, 64_720, 10**6)]
    assert found == [(1, 0), (499, 0), (500, 500), (2_000, 6_472), (2_000, 10_000)]


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
    # More texts, or one more for each, would take too long, and more passes are of no use.
    most = plan.epochs == max(10, min(12, -(-12_800 // rows)))
    assert least or taken <= 60 * minutes * 1.02
    assert least or most or taken >= 60 * minutes * 0.85
    assert plan.texts <= texts and (least or plan.epochs == -(-plan.updates * BATCH // rows))


def test_more_time_buys_more_texts_then_fabricated_ones_then_epochs_and_plans_without_a_limit():
    plans = [make_plan(10_000, 0, SPEEDS, Limits(minutes), SETTINGS) for minutes in (2, 4.7, 20, 2000)]
    assert plans[0].texts < plans[1].texts == plans[2].texts == plans[3].texts == 10_000
    assert [plan.n_iter for plan in plans] == [0, 1, 10, 20]
    assert plans[3].epochs == 10 > plans[2].epochs
    plan = make_plan(10_000, 30, SPEEDS, Limits(0.1), SETTINGS)
    assert (plan.texts, plan.n_iter, plan.updates) == (128, 0, 20)
    assert sum(plan.seconds.values()) > 6
    shorter = Speeds(0.01, 0.001, 0.001, made=0.8)
    plan = make_plan(10_000, 0, shorter, Limits(20), SETTINGS)
    assert plan.n_iter > make_plan(10_000, 0, SPEEDS, Limits(20), SETTINGS).n_iter
    train = 10_000 - sum(held_out(10_000))
    long = train * (1 + plan.n_iter * 0.8)
    assert plan.seconds["teacher"] == pytest.approx(0.01 * (long + 10_000 - train))
    assert plan.seconds["student"] == pytest.approx(0.001 * plan.updates * BATCH * long / (train + plan.n_iter * train))
    assert 0.95 * 20 * 60 < sum(plan.seconds.values()) <= 1.02 * 20 * 60
    assert make_plan(200_000, 0, SPEEDS, Limits(), SETTINGS).n_iter == 0
    alone = make_plan(1_000, 3, SPEEDS, Limits(n_iter=0), SETTINGS)
    wanted = make_plan(1_000, 0, SPEEDS, Limits(60, n_iter=2), SETTINGS)
    assert (alone.n_iter, alone.updates, wanted.n_iter) == (0, 12 * 4, 2)
    seconds = 3 + 20 + 1_000 * 0.01 + alone.words * 0.001 + alone.updates * BATCH * 0.001
    assert sum(alone.seconds.values()) == pytest.approx(seconds)
    small = make_plan(1_000, 0, SPEEDS, Limits(), SETTINGS)
    assert (small.texts, small.n_iter, small.epochs, small.updates) == (1_000, 20, 4, 4 * -(-900 * 21 // BATCH))
    assert make_plan(1_000, 0, SPEEDS, Limits(epochs=3), SETTINGS).epochs == 3  # what the user wants
    assert make_plan(1_000, 0, SPEEDS, Limits(600, n_iter=0), SETTINGS).epochs == 12


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
WORDS = ["good", "bad", "film"]
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


def test_a_word_that_the_teacher_answers_both_ways_is_an_unsure_one():
    rows = [(f"{word} {row}", {"good": 1, "bad": 0, "film": row % 2}[word]) for row in range(20) for word in WORDS]
    texts, labels = [text for text, _ in rows], np.array([label for _, label in rows])
    task = Task("films", "single", ("bad", "good"))
    found = read_others([texts], np.eye(2, dtype=np.float32)[labels], [WORDS], task)
    assert found.argmax(1)[:2].tolist() == [1, 0]
    good, bad, film = entropy(softmax(found, 1), axis=1)
    assert film > 2 * max(good, bad)
    alike = np.array([[0.0, 1.0]] * len(texts), np.float32)
    assert not read_others([texts], alike, [WORDS], task).any()


def test_a_choice_takes_time_in_the_plan():
    load = partial(load_profile, "distil", environ={}, uses=())
    alone, chosen = (load(flags={"transfer.choose": way}).settings for way in ("random", "entropy"))
    speeds = Speeds(0.01, 0.001, 0.001)
    budget, minutes = Limits(budget=4_000), Limits(2)
    plain = make_plan(4_000, 0, speeds, budget, alone)
    plan = make_plan(4_000, 0, speeds, budget, chosen, more=True)
    own = plan.seconds.pop("choice")
    assert plan == plain and own == pytest.approx(0.001 * (4_000 - 400))
    assert make_plan(4_000, 0, speeds, budget, chosen) == plain  # there is nothing to choose
    assert 0.85 * 120 <= sum(make_plan(20_000, 0, speeds, minutes, chosen).seconds.values()) <= 1.02 * 120


def test_a_score_has_no_entropy(tmp_path):
    (tmp_path / "my.toml").write_text('extends = "distil"\n[transfer]\nchoose = "entropy"\n')
    score = {"task.labels": (), "task.names": (), "task.metric": "pearson"}
    with raising(ProfileError, "entropy", key="transfer.choose"):
        load_profile(tmp_path / "my.toml", environ={}, flags=score)


def test_the_student_reads_99_of_100_texts_whole():
    settings = load_profile("distil").settings
    lengths = [*range(10, 209), 400, 500]  # 201 texts, two of which are longer than 208 words
    texts = pl.DataFrame({"sentence": [" ".join(["a"] * length) for length in lengths]})
    assert student_settings(texts, settings)["student.max_length"] == 208 and count_cut(texts, 208) == 2
    assert student_settings(pl.DataFrame({"sentence": ["a"] * 20}), settings)["student.max_length"] == 8


@pytest.mark.parametrize(
    ("scores", "beyond", "said"),
    [
        ([0.5, 0.6], 0, "too short"),
        ([0.5, 0.6, 0.7, 0.7, 0.72, 0.75], 0, "by 5.0 points"),
        ([0.5, 0.6, 0.7, 0.7, 0.7, 0.65], 0, "more time would bring little"),
        ([0.5, 0.6, 0.7, 0.7, 0.7, 0.65], 1200, "1,200 more texts"),
    ],
)
def test_what_more_time_would_bring(scores, beyond, said):
    assert said in outlook([{"accuracy": score} for score in scores], "accuracy", beyond)
