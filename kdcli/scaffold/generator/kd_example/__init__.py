"""A word n-gram language model: it learns a task's texts in seconds, without a GPU."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from kdcli.api import Corpus, DataError, GeneratorSettings, Part, Reporter, Sampler, Samples
from pydantic import BaseModel, Field

api_version = 2
TAB, END = "\t", "\n"  # words like any other: a tab between the texts of a pair, an end before and behind all


class Options(BaseModel, extra="forbid", frozen=True):
    """The table ``[generators.example]`` of a profile."""

    order: int = Field(2, ge=1, description="Words of an n-gram: a word depends on the `order - 1` before it.")
    max_words: int = Field(128, ge=1, description="Longest text: a draw with no end by then is rejected.")


def fine_tune(corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> dict[str, Any]:
    """Write down which words follow which in the training texts."""
    assert isinstance(settings.options, Options)
    followers: dict[str, list[str]] = {}
    for text in corpus.train:
        words = [END, *re.findall(r"\t|\S+", text), END]
        for place in range(1, len(words)):
            followers.setdefault(history(words[:place], settings.options.order), []).append(words[place])
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "followers.json").write_text(json.dumps(followers), "utf-8")
    return {"histories": len(followers)}


def load(checkpoint: Path, settings: GeneratorSettings, reporter: Reporter) -> Sampler:
    """Load what ``fine_tune`` wrote."""
    if (settings.temperature, settings.top_k, settings.top_p) != (1, 0, 1):
        reporter.warn("temperature, top_k and top_p change nothing here")
    try:
        return NgramSampler(json.loads((checkpoint / "followers.json").read_text("utf-8")), settings)
    except (OSError, ValueError) as error:
        raise DataError("this is no n-gram model", file=checkpoint, hint="fine-tune it again") from error


def history(words: list[str], order: int) -> str:
    """Return what the next word depends on: the last ``order - 1`` words."""
    return " ".join(words[max(len(words) - order + 1, 0) :])


class NgramSampler:
    """Draws texts word by word."""

    def __init__(self, followers: dict[str, list[str]], settings: GeneratorSettings) -> None:
        assert isinstance(settings.options, Options)
        self.followers, self.options, self.pair = followers, settings.options, settings.kind == "pair"

    def prefixes(self, corpus: Corpus) -> dict[str, Any]:
        return {}  # none: the model knows how texts begin

    def sample(self, prefixes: Mapping[str, Any], part: Part) -> Samples:
        """Draw the texts of one part; each depends on the seed and on its own number alone."""
        drawn = [self._draw(Random(f"{part.seed} {part.first + place}")) for place in range(part.count)]
        texts = [text for text in drawn if all(map(str.strip, text.split(TAB)))]
        return Samples(texts, {"blank, or without an end": len(drawn) - len(texts)})

    def _draw(self, random: Random) -> str:
        words = [END]
        while len(words) <= self.options.max_words:
            known = self.followers.get(history(words, self.options.order))
            if known is None:  # a pair's first text that ends as second ones do
                return ""
            word = random.choice(known)
            if word in (TAB, END) and (TAB in words or not self.pair):
                return " ".join(words[1:]).replace(f" {TAB} ", TAB)
            words.append(TAB if word == END else word)
        return ""
