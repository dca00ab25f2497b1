import itertools
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from notes import Notes
from pydantic import BaseModel
from raising import raising
from written import rows_of

from kdcli.api import GeneratorSettings, Samples, Task
from kdcli.config.transfer import HeavySettings
from kdcli.errors import DataError, KdError, PluginError
from kdcli.transfer import sampling
from kdcli.transfer.heavy import GeneratorRun
from kdcli.transfer.sampling import draw_samples

SINGLE = Task("films", "single", ("0", "1"))
PAIR = Task("pairs", "pair", ("0", "1"))
TRAIN = pl.DataFrame({"sentence": ["train  one", "train two", "a \x07 bell"], "label": ["1", "0", "1"]})
DEV = pl.DataFrame({"sentence": ["dev one", "train two", "dev  two"], "label": ["1", "0", "1"]})
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

    def sample(self, prefixes, part):
        if len(self.parts) == self.stop_after:
            raise KeyboardInterrupt
        self.parts.append(SIZES.index(part.count) if part.count < 32 else 3 + (part.first - 28) // 32)
        said = [self.say(draw) for draw in range(part.first, part.first + part.count)]
        texts = [text for text in said if text is not None]
        return Samples(texts, {"no end": len(said) - len(texts)})


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(sampling, "DRAWS", {"cpu": 32})


def run(output, fake, count=10, *, options=None, keep_copies=False, **more):
    folder = output.parent
    for name in ("generator", "prefixes.json"):
        if not (folder / name).exists():
            (folder / name).write_text("{}")
    chosen = {"options": Options(), "kind": "single", "seed": 1, "device": "cpu", "precision": "fp32"}
    run = GeneratorRun("gpt2", GeneratorSettings(**(chosen | (options or {}))))
    object.__setattr__(run, "load", lambda checkpoint, reporter: fake)
    arguments = {"train": TRAIN, "held_out": [DEV], "task": SINGLE} | more
    return draw_samples(
        generator=run,
        checkpoint=folder / "generator",
        prefixes=folder / "prefixes.json",
        settings=HeavySettings(num_samples=count, keep_copies=keep_copies),
        output=output,
        **arguments,
    )


def texts_of(path):
    return [row[0] for row in rows_of(path) if row[1] == "heavy"]


def normal(text):
    return " ".join(text.replace("\x07", "").replace("\x00", "").split())


class Barren(Exception):
    pass


def expected(say, count, keep_copies=False):
    """Go through the draws one by one until a part ends with enough: the texts, and the number of each kind."""
    train = {normal(text) for text in TRAIN["sentence"]}
    held_out = {normal(text) for text in DEV["sentence"]}
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
    new, old = f"text {draw}", f" text\x00  {draw - 17} "
    kinds = (new, None, "", "train one", " \t ", "a bell", "dev  two", "train two", old)
    return kinds[draw % len(kinds)]


def half(draw):
    return f"text {draw}" if draw % 2 else None


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
    result = run(tmp_path / "set.tsv", Fake(mixture), 20)
    texts = [text for text in map(mixture, range(result.draws)) if text and text.strip()]
    copies = sum(normal(text) in ("train one", "train two", "a bell") for text in texts)
    assert result.novelty.in_train == pytest.approx(copies / len(texts))
    assert sorted(result.novelty.examples) == sorted(texts_of(tmp_path / "set.tsv"))
    assert result.novelty.bits_per_character is None, "bits are a plugin's choice"


def test_pairs_without_exactly_one_tab_are_rejected(tmp_path):
    said = ["a\tb", "no tab", "a\tb\tc", "\tb", "a\t ", " a \t b ", "c  c\td", "e\tf", "b\ta", None]
    train = pl.DataFrame({"sentence1": ["e"], "sentence2": ["f"], "label": ["1"]})
    dev = pl.DataFrame({"sentence1": ["b"], "sentence2": ["a"], "label": ["1"]})

    def say(draw):
        return said[draw] if draw < len(said) else f"x\t{draw}"

    options = {"kind": "pair"}
    result = run(tmp_path / "set.tsv", Fake(say), 12, task=PAIR, train=train, held_out=[dev], options=options)
    rows = rows_of(tmp_path / "set.tsv")
    assert rows[:3] == [("e", "f", "original", "1"), ("a", "b", "heavy", ""), ("c c", "d", "heavy", "")]
    assert [row[:2] for row in rows[3:]] == [("x", str(draw)) for draw in range(10, 20)]
    assert result.rejected == {"not two texts with one tab": 4, "no end": 1}
    assert (result.duplicates, result.train_copies, result.held_out_copies) == (1, 1, 1)


@pytest.mark.parametrize("after", [0, 2, 4])
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


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"options": {"seed": 2}}, "seed changed"),
        ({"options": {"top_k": 3}}, "top_k changed"),
        ({"options": {"options": Options(width=4)}}, "generators.gpt2.width changed"),
        ({"keep_copies": True}, "keep_copies changed"),
        ({"held_out": []}, "training and held-out texts changed"),
        ("generator", "checkpoint changed"),
        ("prefixes.json", "prefixes changed"),
        ({"options": {"resume": False}}, ""),
    ],
)
def test_a_changed_setting_starts_again_and_is_named(tmp_path, change, why):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "set.tsv", Fake(half, stop_after=3), 45)
    if isinstance(change, str):
        (tmp_path / change).write_text('{"another": 1}')
    again, notes = Fake(half), Notes()
    run(tmp_path / "set.tsv", again, 45, reporter=notes, **({} if isinstance(change, str) else change))
    assert again.parts == [0, 1, 2, 3, 4]
    assert len(notes.warnings) == bool(why) and all(message.startswith(why) for message in notes.warnings)


def test_a_generator_that_never_ends_a_text_stops_soon(tmp_path):
    fake = Fake(lambda draw: None)
    with raising(KdError, key="transfer.heavy.num_samples"):
        run(tmp_path / "set.tsv", fake, 1000)
    assert not (tmp_path / "set.tsv").exists()
    with pytest.raises(KdError, match="0 of 4"):
        run(tmp_path / "set.tsv", again := Fake(half), 1000)
    assert again.parts == [], "the parts are there; another generator has others"
    with raising(KdError, hint="--sample-temperature"):
        run(tmp_path / "known.tsv", Fake(lambda draw: "train one"), 10, options={"seed": 2})


def test_a_generator_with_little_to_say_tells_how_much_can_be_asked_for(tmp_path):
    def say(draw):
        return f"text {draw % 20}"

    with raising(KdError, what="20 of 60 draws gave a new text (33.33%), 0 of the last 32", hint="--num-samples 20"):
        run(tmp_path / "set.tsv", Fake(say), 1000)
    again = Fake(say)
    check(run(tmp_path / "set.tsv", again, 20), tmp_path / "set.tsv", say, 20)
    assert again.parts == []


def test_the_share_that_must_be_new_is_one_in_a_hundred(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "DRAWS", {"cpu": 8000})
    result = run(tmp_path / "set.tsv", Fake(lambda draw: f"text {draw}" if draw % 100 == 0 else None), 11)
    assert (result.samples, result.draws) == (11, 3000)
    with pytest.raises(KdError, match=r"9 of 1000 draws gave a new text \(0\.90%\)"):
        run(tmp_path / "other.tsv", Fake(lambda draw: f"text {draw}" if draw % 120 == 0 else None), 11)


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (lambda size: ["text"] * size, "returns no Samples, but list"),
        (lambda size: Samples(["text"] * (size - 1), {}), "asked for 4 draws, and accounts for 3 texts"),
        (lambda size: Samples(iter(["text"] * size), {}), "texts are no list, but list_iterator"),
        (lambda size: Samples(["text"], None), "rejected are no counts by reason, but None"),
        (lambda size: Samples(["text"] * (size + 1), {"no end": -1}), "rejected are no counts"),
        (lambda size: Samples(["text"] * (size - 1) + [b"text"], {}), "no string, but bytes: b'text'"),
        (lambda size: Samples(["text", "half \ud83d"] + ["text"] * (size - 2), {}), "half of a surrogate pair"),
        (lambda size: Samples(["one\ttwo"] * size, {}), "draws single texts with tabs"),
        (lambda size: [][size], "failed in sample: IndexError: list index out of range"),
    ],
)
def test_a_generator_whose_samples_are_none(tmp_path, samples, says):
    class Careless(Fake):
        def sample(self, prefixes, part):
            return samples(part.count)

    with raising(PluginError, says, hint=True, what="the generator plugin kdcli:gpt2 "):
        run(tmp_path / "set.tsv", Careless(half))
    assert not (tmp_path / "set.tsv").exists()
    Careless.sample, Careless.bits = Fake.sample, lambda self, texts: texts.bits
    with raising(PluginError, "failed in bits: AttributeError"):
        run(tmp_path / "set.tsv", Careless(half), options={"seed": 2})


def test_tabs_in_single_texts_are_rejected_and_never_break_the_table(tmp_path):
    said = ["one\ttwo", "three", " \t ", "four\n", "\u2028five", None, "\tsix"]
    result = run(tmp_path / "set.tsv", Fake(lambda draw: said[draw] if draw < len(said) else f"text {draw}"), 8)
    assert result.rejected == {"a tab in a single text": 2, "blank": 1, "no end": 1}
    assert texts_of(tmp_path / "set.tsv") == ["three", "four", "five", *(f"text {draw}" for draw in range(7, 12))]
    train = pl.DataFrame({"sentence": ["tab\there"], "label": ["1"]})
    fake = Fake(half)
    with pytest.raises(DataError, match="tab"):
        run(tmp_path / "set.tsv", fake, train=train)
    assert fake.parts == []
    assert run(tmp_path / "set.parquet", fake, train=train).rows == 11


def test_the_parts_on_a_gpu_are_larger(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "DRAWS_ELSEWHERE", 64)
    result = run(tmp_path / "set.tsv", Fake("text {}".format), 1, options={"device": "cuda:1"})
    assert result.draws == 8
