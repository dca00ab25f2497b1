"""Samples of a generator that says, for each draw, what a function says: all counts are checked by plain Python."""

import dataclasses
import itertools
import json
import threading
import time
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from kdcli.api import GeneratorSettings, QuietReporter, Samples, Task
from kdcli.config.schema import HeavySettings
from kdcli.errors import DataError, KdError, PluginError
from kdcli.parts.parts import ALONE, Parts, Shard
from kdcli.tables.read import read_table
from kdcli.transfer import samples
from kdcli.transfer.draws import first_of, size_of
from kdcli.transfer.gathering import report_of
from kdcli.transfer.heavy import Road
from kdcli.transfer.samples import draw_samples

SINGLE = Task("films", "single", ("0", "1"))
PAIR = Task("pairs", "pair", ("0", "1"))
TRAIN = pa.table({"sentence": ["train  one", "train two", "a \x07 bell"], "label": ["1", "0", "1"]})
DEV = pa.table({"sentence": ["dev one", "train two", "dev  two"], "label": ["1", "0", "1"]})
SIZES = [4, 8, 16, *itertools.repeat(32, 20)]
"""Draws of the parts, with the largest of 32."""


class Options(BaseModel):
    width: int = 3


class Fake:
    """A generator: ``say`` gives the text of each draw, or None where it comes to none."""

    def __init__(self, say, stop_after=None):
        self.say = say
        self.stop_after = stop_after
        self.parts = []

    def sample(self, starts, part):
        if len(self.parts) == self.stop_after:
            raise KeyboardInterrupt
        self.parts.append(SIZES.index(part.count) if part.count < 32 else 3 + (part.first - 28) // 32)
        said = [self.say(draw) for draw in range(part.first, part.first + part.count)]
        texts = [text for text in said if text is not None]
        return Samples(texts, {"no end": len(said) - len(texts)})


class Said(QuietReporter):
    def __init__(self):
        self.told = []

    def warn(self, message):
        self.told.append(message)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(samples, "DRAWS", {"cpu": 32})


def run(output, fake, count=10, *, options=None, keep_copies=False, **more):
    folder = output.parent
    for name in ("generator", "prefixes.json"):
        if not (folder / name).exists():
            (folder / name).write_text("{}")
    chosen = {"options": Options(), "kind": "single", "seed": 1, "device": "cpu", "precision": "fp32"}
    road = Road("fake", GeneratorSettings(**(chosen | (options or {}))))
    object.__setattr__(road, "load", lambda checkpoint, reporter: fake)
    arguments = {"train": TRAIN, "held_out": [DEV], "task": SINGLE} | more
    return draw_samples(
        road=road,
        checkpoint=folder / "generator",
        prefixes=folder / "prefixes.json",
        settings=HeavySettings(num_samples=count, keep_copies=keep_copies),
        output=output,
        **arguments,
    )


def texts_of(path):
    return [row["sentence"] for row in read_table(path).table().to_pylist() if row["source"] == "heavy"]


def normal(text):
    return " ".join(text.replace("\x07", "").replace("\x00", "").split())


class Barren(Exception):
    """A part gave no new text."""


def expected(say, count, keep_copies=False):
    """Go through the draws one by one until a part ends with enough: the texts, and the number of each kind."""
    train = {normal(text) for text in TRAIN["sentence"].to_pylist()}
    held_out = {normal(text) for text in DEV["sentence"].to_pylist()}
    new, seen, counts, draws = [], set(), Counter(), 0
    for size in SIZES:
        before = len(new)
        for draw in range(draws, draws + size):
            said = say(draw)
            text = None if said is None else normal(said)
            if not text:
                counts["no end" if said is None else "blank"] += 1
            elif text in seen:
                counts["duplicates"] += 1
            else:
                seen.add(text)
                if text in train and not keep_copies:
                    counts["train_copies"] += 1
                elif text in held_out:
                    counts["held_out_copies"] += 1
                else:
                    new.append(text)
        draws += size
        if len(new) >= count:
            break
        if len(new) == before:
            raise Barren(f"{len(new)} of {draws} draws gave a new text")
    counts["excess"] = len(new) - count
    return new[:count], counts, draws


def check(result, path, say, count, **how):
    texts, counts, draws = expected(say, count, **how)
    assert texts_of(path) == texts
    assert len(texts) == count == result.samples
    assert result.draws == draws
    assert result.rejected == {name: counts[name] for name in ("no end", "blank") if counts[name]}
    for name in ("duplicates", "train_copies", "held_out_copies", "excess"):
        assert getattr(result, name) == counts[name], name
    assert count + counts.total() == draws, "no draw is counted twice or lost"
    assert result.acceptance == pytest.approx((count + counts["excess"]) / draws)


def mixture(draw):
    """Say something of every kind."""
    new, old = f"text {draw}", f" text\x00  {draw - 17} "
    kinds = (new, None, "", "train one", " \t ", "a bell", "dev  two", "train two", old)
    return kinds[draw % len(kinds)]


def half(draw):
    """Come to nothing in half of the draws."""
    return f"text {draw}" if draw % 2 else None


# Counts


def test_the_counts_are_exact(tmp_path):
    result = run(tmp_path / "set.tsv", Fake(mixture), 20)
    check(result, tmp_path / "set.tsv", mixture, 20)
    assert min(result.duplicates, result.train_copies, result.held_out_copies, len(result.rejected)) > 0
    rows = [tuple(row.values()) for row in read_table(tmp_path / "set.tsv").table().to_pylist()]
    originals = zip(TRAIN["sentence"].to_pylist(), ["original"] * 3, TRAIN["label"].to_pylist(), strict=True)
    assert rows[:3] == list(originals)
    assert {row[1:] for row in rows[3:]} == {("heavy", "")}
    assert (result.rows, result.originals) == (23, 3)
    assert json.loads(report_of(tmp_path / "set.tsv").read_text("utf-8")) == dataclasses.asdict(result)
    kept = {"generator", "prefixes.json", "set.tsv", "set.tsv.report.json"}
    assert {path.name for path in tmp_path.iterdir()} == kept, "nothing else is left"


def test_copies_of_training_texts_are_kept_if_asked(tmp_path):
    result = run(tmp_path / "set.tsv", Fake(mixture), 20, keep_copies=True)
    check(result, tmp_path / "set.tsv", mixture, 20, keep_copies=True)
    texts = texts_of(tmp_path / "set.tsv")
    assert {"train one", "a bell"} <= set(texts)
    # "train two" is a text of dev, too: those never stay.
    assert "train two" not in texts and result.held_out_copies == 2


FEW = st.sampled_from([None, "", "train one", "dev two", "one", " one ", "two"])


@settings(max_examples=60)
@given(
    said=st.lists(st.one_of(st.integers(0, 60).map("text {}".format), FEW), min_size=60, max_size=60),
    count=st.integers(1, 12),
    keep_copies=st.booleans(),
)
def test_any_draws_give_the_first_new_texts(tmp_path_factory, said, count, keep_copies):
    output = tmp_path_factory.mktemp("draws") / "set.tsv"

    def say(draw):
        return said[draw % len(said)]

    try:
        expected(say, count, keep_copies)
    except Barren as barren:
        with pytest.raises(KdError, match=str(barren)):
            run(output, Fake(say), count, keep_copies=keep_copies)
    else:
        check(run(output, Fake(say), count, keep_copies=keep_copies), output, say, count, keep_copies=keep_copies)


def test_the_report_tells_of_copies_before_they_are_dropped(tmp_path):
    class Scoring(Fake):
        def bits(self, texts):
            return pa.array([8.0] * len(texts)).to_numpy()

    result = run(tmp_path / "set.tsv", Scoring(mixture), 20)
    said = [mixture(draw) for draw in range(result.draws)]
    texts = [text for text in said if text and text.strip()]
    copies = sum(normal(text) in ("train one", "train two", "a bell") for text in texts)
    assert result.novelty.in_train == pytest.approx(copies / len(texts))
    taken = texts_of(tmp_path / "set.tsv")
    assert result.novelty.samples == result.novelty.scored == 20
    assert result.novelty.bits_per_character == pytest.approx(8 * 20 / sum(map(len, taken)))
    assert sorted(result.novelty.examples) == sorted(taken)
    other = run(tmp_path / "other.tsv", Fake(mixture), 20)
    assert other.novelty.bits_per_character is None, "bits are a plugin's choice"


def test_pairs_without_exactly_one_tab_are_rejected(tmp_path):
    said = ["a\tb", "no tab", "a\tb\tc", "\tb", "a\t ", " a \t b ", "c  c\td", "e\tf", "b\ta", None]
    train = pa.table({"sentence1": ["e"], "sentence2": ["f"], "label": ["1"]})
    dev = pa.table({"sentence1": ["b"], "sentence2": ["a"], "label": ["1"]})

    def say(draw):
        return said[draw] if draw < len(said) else f"x\t{draw}"

    options = {"kind": "pair"}
    result = run(tmp_path / "set.tsv", Fake(say), 12, task=PAIR, train=train, held_out=[dev], options=options)
    rows = [tuple(row.values()) for row in read_table(tmp_path / "set.tsv").table().to_pylist()]
    assert rows[:3] == [("e", "f", "original", "1"), ("a", "b", "heavy", ""), ("c c", "d", "heavy", "")]
    assert [row[:2] for row in rows[3:]] == [("x", str(draw)) for draw in range(10, 20)]
    assert result.rejected == {"not two texts with one tab": 4, "no end": 1}
    assert (result.duplicates, result.train_copies, result.held_out_copies) == (1, 1, 1)


# Parts


def test_parts_grow_and_their_draws_follow_each_other():
    sizes = [size_of(part, 8192) for part in range(6)]
    assert sizes == [1024, 2048, 4096, 8192, 8192, 8192]
    assert [first_of(part, 8192) for part in range(6)] == [0, *itertools.accumulate(sizes[:5])]


def test_no_more_parts_are_made_than_needed(tmp_path):
    fake = Fake("text {}".format)
    run(tmp_path / "set.tsv", fake, 28)
    assert fake.parts == [0, 1, 2]
    fake = Fake("text {}".format)
    run(tmp_path / "other.tsv", fake, 29)
    assert fake.parts == [0, 1, 2, 3]


def test_more_parts_than_it_seemed_at_first(tmp_path):
    def say(draw):
        """Give texts that are new less and less often."""
        return f"text {draw}" if draw < 10 else f"text {draw // 3 + 7}"

    fake = Fake(say)
    result = run(tmp_path / "set.tsv", fake, 30)
    check(result, tmp_path / "set.tsv", say, 30)
    assert fake.parts == list(range(len(fake.parts))) and len(fake.parts) > 3


@pytest.mark.parametrize("after", range(5))
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(tmp_path, after):
    whole = Fake(half)
    run(tmp_path / "whole.tsv", whole, 45)
    assert whole.parts == [0, 1, 2, 3, 4]
    first, second = Fake(half, stop_after=after), Fake(half)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "set.tsv", first, 45)
    assert not (tmp_path / "set.tsv").exists()
    run(tmp_path / "set.tsv", second, 45)
    assert first.parts + second.parts == whole.parts, "nothing is made twice"
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert report_of(tmp_path / "set.tsv").read_bytes() == report_of(tmp_path / "whole.tsv").read_bytes()


@pytest.mark.parametrize("step", ["novelty", "write_report", "write_set"])
def test_a_run_stopped_while_it_is_put_together(tmp_path, monkeypatch, step):
    run(tmp_path / "whole.tsv", Fake(half), 45)

    def stop(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(samples, step, stop)
        run(tmp_path / "set.tsv", Fake(half), 45)
    assert not (tmp_path / "set.tsv").exists()
    again = Fake(half)
    run(tmp_path / "set.tsv", again, 45)
    assert again.parts == []
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()


def stopped(output, count=45, after=3, **more):
    """Leave a run that has made some parts; return their folder."""
    with pytest.raises(KeyboardInterrupt):
        run(output, Fake(half, stop_after=after), count, **more)
    return output.with_name(f".{output.name}.samples")


def test_a_damaged_part_is_made_again(tmp_path):
    run(tmp_path / "whole.tsv", Fake(half), 45)
    folder = stopped(tmp_path / "set.tsv")
    part = folder / "000001.arrow"
    part.write_bytes(part.read_bytes()[:-40] + bytes(40))
    again, said = Fake(half), Said()
    run(tmp_path / "set.tsv", again, 45, reporter=said)
    assert again.parts == [1, 3, 4]
    assert said.told == ["part 1 is damaged: it is made again"]
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()


def test_another_number_goes_on_with_the_same_parts(tmp_path):
    stopped(tmp_path / "set.tsv", 45)
    again = Fake(half)
    result = run(tmp_path / "set.tsv", again, 5)
    assert again.parts == []
    check(result, tmp_path / "set.tsv", half, 5)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"options": {"seed": 2}}, "seed changed (1 -> 2): starting again"),
        ({"options": {"top_k": 3}}, "top_k changed (0 -> 3): starting again"),
        ({"options": {"options": Options(width=4)}}, "generators.fake.width changed (3 -> 4): starting again"),
        ({"keep_copies": True}, "keep_copies changed (False -> True): starting again"),
        ({"held_out": []}, "training and held-out texts changed"),
    ],
)
def test_a_changed_setting_starts_again_and_is_named(tmp_path, change, why):
    stopped(tmp_path / "set.tsv")
    again, said = Fake(half), Said()
    run(tmp_path / "set.tsv", again, 45, reporter=said, **change)
    assert again.parts == [0, 1, 2, 3, 4]
    assert len(said.told) == 1 and said.told[0].startswith(why)


@pytest.mark.parametrize("name", ["generator", "prefixes.json"])
def test_another_generator_starts_again(tmp_path, name):
    stopped(tmp_path / "set.tsv")
    (tmp_path / name).write_text('{"another": 1}')
    again, said = Fake(half), Said()
    run(tmp_path / "set.tsv", again, 45, reporter=said)
    assert again.parts == [0, 1, 2, 3, 4]
    assert said.told[0].startswith("checkpoint changed" if name == "generator" else "prefixes changed")


def test_resume_never_starts_again(tmp_path):
    stopped(tmp_path / "set.tsv")
    again = Fake(half)
    run(tmp_path / "set.tsv", again, 45, options={"resume": False})
    assert again.parts == [0, 1, 2, 3, 4]


# Shards


def test_shards_one_after_the_other_make_the_same_file(tmp_path):
    run(tmp_path / "whole.tsv", Fake(half), 45)
    first, second = Fake(half), Fake(half)
    assert run(tmp_path / "set.tsv", first, 45, shard=Shard(0, 2)) is None
    assert not (tmp_path / "set.tsv").exists()
    result = run(tmp_path / "set.tsv", second, 45, shard=Shard(1, 2))
    assert first.parts == [0, 2, 4] and second.parts == [1, 3]
    check(result, tmp_path / "set.tsv", half, 45)
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert report_of(tmp_path / "set.tsv").read_bytes() == report_of(tmp_path / "whole.tsv").read_bytes()
    assert not list(tmp_path.glob(".*")), "no lock and no part is left"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_shards_in_any_order_and_the_last_makes_what_is_left(tmp_path, order):
    def say(draw):
        """Make the first part seem a good sign."""
        return f"text {draw}" if draw < 4 or draw % 5 == 0 else "again"

    run(tmp_path / "whole.tsv", Fake(say), 30)
    fakes = [Fake(say) for _ in range(3)]
    results = [run(tmp_path / "set.tsv", fakes[index], 30, shard=Shard(index, 3)) for index in order]
    assert results[:2] == [None, None] and results[2] is not None
    made = [part for fake in fakes for part in fake.parts]
    assert len(set(made)) == len(made), "no part is made twice"
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()


@pytest.mark.parametrize("slow", [{}, {0: 0.15}, {1: 0.15}, {3: 0.3}, {4: 0.3, 5: 0.3}, {2: 0.2, 5: 0.4}])
def test_shards_at_the_same_time_make_the_same_file(tmp_path, slow):
    def say(draw):
        return f"text {draw}" if draw < 12 or draw % 4 == 0 else "again"

    class Slow(Fake):
        def sample(self, starts, part):
            drawn = super().sample(starts, part)
            time.sleep(slow.get(self.parts[-1], 0.0))
            return drawn

    run(tmp_path / "whole.tsv", Fake(say), 45)
    results = {}

    def work(index):
        results[index] = run(tmp_path / "set.tsv", Slow(say), 45, shard=Shard(index, 2))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(result is not None for result in results.values()) == 1, "one of them puts the parts together"
    assert (tmp_path / "set.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert report_of(tmp_path / "set.tsv").read_bytes() == report_of(tmp_path / "whole.tsv").read_bytes()
    assert not list(tmp_path.glob(".*samples/*"))


def test_a_part_that_comes_while_a_shard_leaves_is_not_taken_for_the_last_one(tmp_path, monkeypatch):
    """The other shard ends what seemed to be the last part just then, and it is not enough."""

    def say(draw):
        few = (12, 16, 20, 24, 30, 40)
        return f"text {draw}" if draw < 12 or draw in few or draw >= 60 else "text 0"

    class Waiting(Fake):
        def sample(self, starts, part):
            if part.first == 28:
                waits.set()
                assert may_go.wait(60)
            return super().sample(starts, part)

    def leave(self):
        answer = ask(self)
        may_go.set()
        while not self.path(3).exists():
            time.sleep(0.01)
        return answer

    output, waits, may_go, ask, results = tmp_path / "set.tsv", threading.Event(), threading.Event(), Parts.is_last, []
    run(tmp_path / "whole.tsv", Fake(say), 20)
    assert run(output, Fake(say), 20, shard=Shard(0, 2)) is None
    other = threading.Thread(target=lambda: results.append(run(output, Waiting(say), 20, shard=Shard(1, 2))))
    other.start()
    assert waits.wait(60)
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "is_last", lambda self: leave(self) if self.shard.index == 0 else ask(self))
        assert run(output, Fake(say), 20, shard=Shard(0, 2)) is None
    other.join(60)
    check(results[0], output, say, 20)
    assert output.read_bytes() == (tmp_path / "whole.tsv").read_bytes()


def test_the_same_shard_twice_is_an_error(tmp_path):
    class Impatient(Fake):
        def sample(self, starts, part):
            with pytest.raises(KdError, match="running already"):
                run(tmp_path / "set.tsv", Fake(half), 10)
            return super().sample(starts, part)

    run(tmp_path / "set.tsv", Impatient(half), 4)


# What goes wrong


def test_a_generator_that_never_ends_a_text_stops_soon(tmp_path):
    fake = Fake(lambda draw: None)
    with pytest.raises(KdError) as error:
        run(tmp_path / "set.tsv", fake, 1000)
    assert error.value.what == "0 of 4 draws gave a new text (0.00%); rejected: 4 no end"
    assert "longer" in error.value.hint and "max_length, if it is a language model" in error.value.hint
    assert error.value.key == "transfer.heavy.num_samples"
    assert not (tmp_path / "set.tsv").exists()
    with pytest.raises(KdError, match="0 of 4"):
        run(tmp_path / "set.tsv", again := Fake(half), 1000)
    assert again.parts == [], "the parts are there; another generator has others"


def test_a_generator_with_little_to_say_tells_how_much_can_be_asked_for(tmp_path):
    def say(draw):
        return f"text {draw % 20}"

    with pytest.raises(KdError) as error:
        run(tmp_path / "set.tsv", Fake(say), 1000)
    assert error.value.what == "20 of 60 draws gave a new text (33.33%), 0 of the last 32"
    assert "--num-samples 20" in error.value.hint
    again = Fake(say)
    check(run(tmp_path / "set.tsv", again, 20), tmp_path / "set.tsv", say, 20)
    assert again.parts == []


def test_a_generator_that_repeats_the_training_texts(tmp_path):
    with pytest.raises(KdError, match="0 of 4 draws gave a new text") as error:
        run(tmp_path / "set.tsv", Fake(lambda draw: "train one"), 10)
    assert "--sample-temperature" in error.value.hint


def test_the_share_that_must_be_new_is_one_in_a_hundred(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "DRAWS", {"cpu": 8000})
    result = run(tmp_path / "set.tsv", Fake(lambda draw: f"text {draw}" if draw % 100 == 0 else None), 11)
    assert (result.samples, result.draws) == (11, 3000)
    with pytest.raises(KdError, match=r"9 of 1000 draws gave a new text \(0\.90%\)"):
        run(tmp_path / "other.tsv", Fake(lambda draw: f"text {draw}" if draw % 120 == 0 else None), 11)


@pytest.mark.parametrize(("more", "says"), [(-1, "3 texts and the rejected {}"), (1, "5 texts")])
def test_a_generator_that_loses_draws_breaks_the_contract(tmp_path, more, says):
    class Careless(Fake):
        def sample(self, starts, part):
            return Samples([f"text {draw}" for draw in range(part.count + more)], {})

    with pytest.raises(PluginError, match="the generator plugin fake was asked for 4 draws") as error:
        run(tmp_path / "set.tsv", Careless(half))
    assert says in error.value.what
    assert not list((tmp_path / ".set.tsv.samples").glob("*.arrow"))


def test_a_generator_that_returns_something_else(tmp_path):
    class Careless(Fake):
        def sample(self, starts, part):
            return ["text"] * part.count

    with pytest.raises(PluginError, match="the generator plugin fake returns no Samples, but list"):
        run(tmp_path / "set.tsv", Careless(half))


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (lambda size: Samples(iter(["text"] * size), {}), "texts are no list, but list_iterator"),
        (lambda size: Samples(["text"], None), "rejected are no counts by reason, but None"),
        (lambda size: Samples(["text"] * (size + 1), {"no end": -1}), "rejected are no counts"),
        (lambda size: Samples(["text"] * size, {"no end": 0.0}), "rejected are no counts"),
        (lambda size: Samples(["text"] * (size - 1) + [b"text"], {}), "no string, but bytes: b'text'"),
        (lambda size: Samples(["text"] * (size - 1) + [None], {}), "no string, but NoneType: None"),
        (lambda size: Samples(["text", "half \ud83d"] + ["text"] * (size - 2), {}), "half of a surrogate pair"),
        (lambda size: Samples(["one\ttwo"] * size, {}), "draws single texts with tabs"),
        (lambda size: [][size], "failed in sample: IndexError: list index out of range"),
    ],
)
def test_a_generator_whose_samples_are_none(tmp_path, samples, says):
    class Careless(Fake):
        def sample(self, starts, part):
            return samples(part.count)

    with pytest.raises(PluginError, match=says) as error:
        run(tmp_path / "set.tsv", Careless(half))
    assert error.value.what.startswith("the generator plugin fake ") and error.value.hint
    assert not (tmp_path / "set.tsv").exists()


def test_single_texts_with_a_tab_are_rejected_and_never_break_the_table(tmp_path):
    said = ["one\ttwo", "three", " \t ", "four\n", "\u2028five", None, "\tsix"]
    result = run(tmp_path / "set.tsv", Fake(lambda draw: said[draw] if draw < len(said) else f"text {draw}"), 8)
    assert result.rejected == {"a tab in a single text": 2, "blank": 1, "no end": 1}
    assert texts_of(tmp_path / "set.tsv") == ["three", "four", "five", *(f"text {draw}" for draw in range(7, 12))]


def test_an_original_that_the_form_cannot_hold_is_an_error_before_the_work(tmp_path):
    train = pa.table({"sentence": ["tab\there"], "label": ["1"]})
    fake = Fake(half)
    with pytest.raises(DataError, match="tab or a line end"):
        run(tmp_path / "set.tsv", fake, train=train)
    assert fake.parts == []
    assert run(tmp_path / "set.parquet", fake, train=train).rows == 11


def test_damaged_prefixes(tmp_path):
    (tmp_path / "prefixes.json").write_text('{"tokens": [')
    with pytest.raises(DataError, match="no file of prefixes"):
        run(tmp_path / "set.tsv", Fake(half))


def test_the_parts_on_a_gpu_are_larger(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "DRAWS_ELSEWHERE", 64)
    result = run(tmp_path / "set.tsv", Fake("text {}".format), 1, options={"device": "cuda:1"})
    assert result.draws == 8
    assert Shard(0, 1) == ALONE
