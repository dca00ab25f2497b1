"""A tiny task and its texts: opinions on films, of few words so that a tiny model can learn them."""

from __future__ import annotations

from typing import Any, Literal

from kdcli.api import Corpus, GeneratorSettings, Task

Kind = Literal["single", "pair"]

_THINGS = ("plot", "cast", "music", "ending", "camera", "script")
_WORDS = (("warm", "dull"), ("clever", "cold"), ("lovely", "poor"), ("bright", "slow"), ("rich", "thin"))
_FORMS = (
    "the {one} is {word} and the {other} is {second} .",
    "a {word} {one} , with a {second} {other}",
    "i found the {one} {word} but the {other} was {second} !",
)
SEED = 7


def tiny_task(kind: Kind = "single", scores: bool = False) -> Task:
    """Return a task: two classes for single sentences, three for pairs, or scores from 0 to 5."""
    if scores:
        return Task("tiny", kind, (), score_range=(0.0, 5.0), metric="pearson", more_metrics=("spearman",))
    if kind == "pair":
        return Task("tiny", kind, ("0", "1", "2"), names=("same", "other", "opposite"))
    return Task("tiny", kind, ("0", "1"), names=("negative", "positive"))


def tiny_corpus(kind: Kind = "single") -> Corpus:
    """Return 60 different texts or pairs: 40 to learn from, 10 for dev, 10 for test."""
    texts = [_sentence(place) for place in range(60)]
    if kind == "pair":
        texts = [f"{text}\t{_sentence(7 * place + 3)}" for place, text in enumerate(texts)]
    return Corpus(kind, texts[:40], texts[40:50], texts[50:])


def tiny_settings(options: Any, kind: Kind = "single") -> GeneratorSettings:
    """Return the settings with which generators are checked."""
    return GeneratorSettings(options, kind, seed=SEED, device="cpu", precision="fp32")


def _sentence(place: int) -> str:
    """Return one of the sentences; the first 60 differ."""
    one = place % len(_THINGS)
    words = _WORDS[place % len(_WORDS)]
    return _FORMS[place // 30 % len(_FORMS)].format(
        one=_THINGS[one],
        other=_THINGS[(one + 1 + place // 7 % 5) % len(_THINGS)],
        word=words[place % 2],
        second=_WORDS[(place + 1 + place // 6) % len(_WORDS)][place // 2 % 2],
    )
