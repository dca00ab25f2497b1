"""The settings of the transfer set: texts fabricated, sampled, or taken from the user's own."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from kdcli.config.table import BatchSize, Count, Flag, Positive, Probability, Rate, Table


class LiteSettings(Table):
    """Texts fabricated by rules (Tang et al. 2019, section "Data Augmentation for Distillation")."""

    n_iter: Annotated[Count, Flag("Rules", "N")] = 20
    """Fabricated texts for each training text, before duplicates are dropped."""
    p_mask: Annotated[Probability, Flag("Rules", "P")] = 0.1
    """Probability that a word becomes [MASK]."""
    p_pos: Annotated[Probability, Flag("Rules", "P")] = 0.1
    """Probability that a word becomes another of the same part of speech."""
    p_ngram: Annotated[Probability, Flag("Rules", "P")] = 0.25
    """Probability that only a random n-gram of the text is kept."""
    ngram: Annotated[str, Flag("Rules", "LOW:HIGH")] = "1:5"
    """Shortest and longest n of the n-gram rule."""
    tagger: Annotated[str, Flag("Rules", "NAME", plugins="taggers")] = "pattern"
    """Part-of-speech tagger: a plugin's name."""
    words: Literal["treebank", "whitespace"] = "treebank"
    """How texts are cut into words: by Penn Treebank rules, or at white space (texts tokenised already)."""
    max_words: Count = 0
    """Longest text that new ones are made of, in words; of longer ones the beginning is taken; 0 = no limit."""
    workers: Annotated[Count, Flag("Machine", "N")] = 0
    """Processes that tag and fabricate; 0 = one per core. The result does not depend on it."""

    @field_validator("ngram")
    @classmethod
    def _ngram(cls, value: str) -> str:
        match = re.fullmatch(r"(\d+):(\d+)", value)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"ngram is LOW:HIGH with 1 <= LOW <= HIGH, for example 1:5, not {value!r}")
        return value

    @model_validator(mode="after")
    def _probabilities(self) -> Self:
        if self.p_mask + self.p_pos > 1:
            raise ValueError(f"p_mask + p_pos must not exceed 1, and is {self.p_mask + self.p_pos:g}")
        return self


class HeavySettings(Table):
    """Texts sampled from a language model that was fine-tuned on the task's (Tang, Lu, Lin 2019)."""

    labels: tuple[str, ...] = ()
    """Learn from the texts of these labels only; empty = from all."""
    num_samples: Annotated[Positive, Flag("Sampling", "N")] = 800_000
    """Texts to make; rejected ones and duplicates do not count."""
    temperature: Annotated[Rate, Flag("Sampling", "T", ("--sample-temperature",))] = 1.0
    """Temperature of sampling; 1 draws from the model's own distribution."""
    top_k: Annotated[Count, Flag("Sampling", "K")] = 0
    """Draw among this many most likely tokens; 0 = among all."""
    top_p: Annotated[float, Field(gt=0, le=1), Flag("Sampling", "P")] = 1.0
    """Draw among the most likely tokens that together have this probability; 1 = among all."""
    batch_size: Annotated[BatchSize, Flag("Machine", "N|auto")] = "auto"
    """Texts sampled at once; `auto` finds the largest that fits."""
    keep_copies: bool = False
    """Keep samples that are texts of the training set."""


class CorpusSettings(Table):
    """Unlabelled texts of your own, like those of the task."""

    files: Annotated[tuple[str, ...], Flag("Files", "FILE", ("--input", "-i"))] = ()
    """Files of texts: one a line (.txt), or a column of a table; a pair takes two columns, or one tab in a line."""
    columns: Annotated[tuple[str, ...], Flag("Files", "NAME", ("--column",))] = ()
    """Text columns of those tables, where they are not sentence (of pairs: sentence1, sentence2), or the only one."""
    num_samples: Annotated[Count, Flag("Sampling", "N")] = 0
    """Texts to take; 0 = all."""
    order_by: Annotated[Literal["none", "tfidf", "lm"], Flag("Sampling")] = "none"
    """At random, or those nearest to the task first: by TF-IDF, or by the generator's bits per character."""
    max_words: Positive = 128
    """Longer texts are left out."""


METHODS = ("lite", "heavy", "corpus")  # how texts are made, in the order in which their sets are joined


class TransferSettings(Table):
    """The transfer set: unlabelled texts that look like the task."""

    method: Annotated[str, Field(pattern=r"^(lite|heavy|corpus)(\+(lite|heavy|corpus))*$")] = "lite"
    """How texts are made: lite, heavy or corpus, or several joined by a plus sign: lite+heavy."""
    generator: Annotated[str, Flag("Sampling", "NAME", plugins="generators")] = "gpt2"
    """Language model that samples texts, or orders your own: a generator plugin, with its table generators.NAME."""
    lite: LiteSettings = Field(default_factory=LiteSettings)
    heavy: HeavySettings = Field(default_factory=HeavySettings)
    corpus: CorpusSettings = Field(default_factory=CorpusSettings)
    choose: Literal["random", "entropy"] = "random"
    """Which texts `kd distil` takes, where there are more than its plan: a random draw, or, in rounds, those of which a
    short student is unsure."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order in which their sets are joined."""
        return tuple(name for name in METHODS if name in self.method.split("+"))
