"""``kd transfer heavy``: texts sampled from a generator that has learned the task's (Tang, Lu, Lin 2019).

Four steps: the task's texts are cached, a generator is fine-tuned on them, what samples begin with is counted, and
samples are drawn (``sampling``). This module knows no generator by name.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli import registry
from kdcli.api import Corpus, GeneratorSettings, QuietReporter, Reporter, Sampler, Task
from kdcli.config.schema import Settings
from kdcli.errors import DataError, PluginError
from kdcli.files import foreign, mark, write_text
from kdcli.tables.parquet import scan
from kdcli.tables.write import write_table
from kdcli.tasks.labels import split_sets
from kdcli.transfer.cleaning import WORD, one_line, plain

SPLITS = ("train", "dev", "test")
SHOWN = 10
_CONTRACT = "kdcli.api says what a plugin returns"

Bits = Callable[[Sequence[str]], NDArray[np.float64]]  # gives the bits that each text takes, ``float64 [texts]``


@dataclass(frozen=True)
class CacheResult:
    """What was cached."""

    train: int  # texts to learn from
    dev: int  # texts that choose among checkpoints
    test: int
    blank: int  # rows left out, because they (or one text of a pair) are blank
    characters: int
    words: int


def cache(
    *,
    splits: Mapping[str, pl.DataFrame],
    task: Task,
    labels: Sequence[str] = (),
    output: Path,
    reporter: Reporter = QuietReporter(),
) -> CacheResult:
    """Write the texts of ``train``, ``dev`` and ``test`` into one table, with the columns ``text`` and ``split``.

    The two texts of a pair are one, with the only tab between them. With ``labels``, only the rows of these are taken,
    where a split has labels.
    """
    texts = {name: _texts(plain(splits[name], task), task, labels) for name in SPLITS if name in splits}
    frame = pl.concat(pl.DataFrame({"text": column}).with_columns(split=pl.lit(name)) for name, column in texts.items())
    kept = frame.filter(pl.col("text") != "")
    sizes = {name: int((kept["split"] == name).sum()) for name in SPLITS}
    for name in ("train", "dev"):
        if not sizes[name]:
            of, key = (f" of label {' or '.join(labels)}", "transfer.heavy.labels") if labels else ("", None)
            hint = "a generator learns from the train texts, and the dev texts choose among its checkpoints"
            raise DataError(f"the {name} set has no texts{of}", key=key, hint=hint)
    blank = len(frame) - len(kept)
    if blank:
        reporter.warn(f"{blank} rows have a blank text and are left out of the cache")
    write_table(output, kept)
    text = pl.col("text")
    sums = {"characters": text.str.len_chars().sum(), "words": text.str.count_matches(WORD).sum()}
    return CacheResult(**sizes, blank=blank, **kept.select(**sums).row(0, named=True))


def read_corpus(path: Path, task: Task) -> Corpus:
    """Read what ``cache`` wrote; anything else is a ``DataError``."""
    hint = "`kd transfer heavy --only cache --force` makes it again"
    try:
        frame = scan(path, ("text", "split")).collect()
    except DataError as error:
        raise DataError(error.what, file=path, key=error.key, hint=hint) from error
    if (frame["text"].str.count_matches("\t", literal=True) != len(task.columns) - 1).any():
        raise DataError(f"the cache does not hold {task.kind} texts", file=path, hint=hint)
    texts = {name: frame.filter(pl.col("split") == name)["text"].to_list() for name in SPLITS}
    return Corpus(task.kind, **texts)


def _texts(table: pl.DataFrame, task: Task, labels: Sequence[str]) -> pl.Series:
    """Make one text of each row; of a row with a blank text an empty one."""
    if labels and table["label"].null_count() < len(table):
        wanted = pl.col("label").is_in(labels)
        if task.multi_label:
            wanted = pl.lit(split_sets(table["label"]).list.eval(pl.element().is_in(labels)).list.any())
        table = table.filter(wanted)
    lines = table.select(one_line(pl.col(task.columns)))
    whole = pl.all_horizontal(pl.all() != "")
    joined = pl.concat_str(task.columns, separator="\t")
    return lines.select(pl.when(whole).then(joined).otherwise(pl.lit(""))).to_series()


@dataclass(frozen=True)
class FineTuneResult:
    """A fine-tuned generator."""

    generator: str
    texts: int
    metrics: dict[str, Any]  # what the plugin measured: bits per character, word perplexity, and how it reached them


@dataclass(frozen=True)
class PrefixResult:
    """What samples begin with."""

    texts: int  # the training texts that were looked at
    sizes: dict[str, int]  # how many entries each list of the prefixes has
    first: dict[str, list[Any]]  # the first of each list


@dataclass(frozen=True)
class GeneratorRun:
    """A generator with its settings, which all steps have in common."""

    generator: str
    settings: GeneratorSettings

    @property
    def title(self) -> str:
        """Its name in messages."""
        return registry.find("generators", self.generator).title

    @classmethod
    def of(cls, settings: Settings, task: Task, *, device: str, seed: int, resume: bool = True) -> Self:
        """Take the generator of a profile."""
        name = settings.transfer.generator
        options = registry.options("generators", name, settings.generators.get(name, {}))
        how = settings.transfer.heavy.model_dump(include={"temperature", "top_k", "top_p", "batch_size"})
        how |= {"seed": seed, "device": device, "precision": settings.precision, "resume": resume}
        return cls(name, GeneratorSettings(options=options, kind=task.kind, **how))

    def fine_tune(self, corpus: Corpus, checkpoint: Path, reporter: Reporter = QuietReporter()) -> FineTuneResult:
        """Fine-tune the generator, into the folder ``checkpoint``."""
        plugin = registry.load("generators", self.generator)
        others = {name: _changed(checkpoint / name) for name in foreign(checkpoint)}
        try:
            with registry.blaming("generators", self.generator, "fine_tune"):
                metrics = plugin.fine_tune(corpus, checkpoint, self.settings, reporter)
        finally:
            if checkpoint.is_dir():
                mark(checkpoint, but=[name for name, time in others.items() if _changed(checkpoint / name) == time])
        if not checkpoint.exists():
            raise PluginError(f"{self.title} was fine-tuned but left no checkpoint", file=checkpoint)
        self._json(metrics, "fine_tune")
        return FineTuneResult(self.generator, len(corpus.train), dict(metrics))

    def load(self, checkpoint: Path, reporter: Reporter = QuietReporter()) -> Sampler:
        """Load the fine-tuned generator; where this machine lacks the device, on the CPU."""
        from kdcli.models.device import at_hand

        settings = replace(self.settings, device=at_hand(self.settings.device))
        plugin = registry.load("generators", self.generator)
        with registry.blaming("generators", self.generator, "load"):
            sampler: Sampler = plugin.load(checkpoint, settings, reporter)
        if lacking := [name for name in ("prefixes", "sample") if not callable(getattr(sampler, name, None))]:
            what = f"{self.title} loads a {type(sampler).__name__}, which has no {' and no '.join(lacking)}"
            raise PluginError(what, hint=_CONTRACT)
        return sampler

    def bits(self, sampler: Sampler) -> Bits | None:
        """Return the function that gives the bits of texts, if the generator has one."""
        bits: Bits | None = getattr(sampler, "bits", None)
        return bits and registry.blaming("generators", self.generator, "bits")(bits)

    def load_bits(self, checkpoint: Path) -> Bits | None:
        """Load the generator for that function alone."""
        return self.bits(self.load(checkpoint))

    def prefixes(
        self, corpus: Corpus, checkpoint: Path, output: Path, reporter: Reporter = QuietReporter()
    ) -> PrefixResult:
        """Write what samples begin with as JSON: for a language model, how often each token comes first."""
        sampler = self.load(checkpoint, reporter)
        with registry.blaming("generators", self.generator, "prefixes"):
            prefixes = sampler.prefixes(corpus)
        text = self._json(prefixes, "prefixes")
        write_text(output, text + "\n")
        lists = {name: values for name, values in prefixes.items() if isinstance(values, list)}
        sizes = {name: len(values) for name, values in lists.items()}
        return PrefixResult(len(corpus.train), sizes, {name: values[:SHOWN] for name, values in lists.items()})

    def fingerprint(self) -> dict[str, Any]:
        """Return all settings that samples depend on, as JSON values by the names that the user knows."""
        values = {field.name: getattr(self.settings, field.name) for field in fields(self.settings)}
        options = values.pop("options").model_dump(mode="json")
        del values["resume"]
        return {
            "generator": self.generator,
            **registry.versions("generators", self.generator),
            **values,
            **{f"generators.{self.generator}.{option}": value for option, value in options.items()},
            "device": self.settings.device.partition(":")[0],
        }

    def _json(self, value: Any, what: str) -> str:
        """Write a plugin's answer as JSON."""
        try:
            return json.dumps({**value}, ensure_ascii=False, indent=1)
        except (TypeError, ValueError) as error:
            problem = f"{self.title} returns from {what} no mapping of JSON values: {error}"
            raise PluginError(problem, hint=_CONTRACT) from error


def _changed(file: Path) -> int | None:
    """Return when a file was changed, in nanoseconds; None if it is gone."""
    return file.lstat().st_mtime_ns if os.path.lexists(file) else None


def read_prefixes(path: Path) -> dict[str, Any]:
    """Read what ``prefixes`` wrote; anything else is a ``DataError``."""
    hint = "`kd transfer heavy --only prefixes --force` makes it again"
    try:
        prefixes: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not isinstance(prefixes, dict):
            raise ValueError("it does not hold an object")
    except (OSError, ValueError) as error:
        raise DataError(f"this is not a file of prefixes: {error}", file=path, hint=hint) from error
    return prefixes
