"""The stages that make the transfer set: one method's table is the set, and several are joined by ``mix``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli.errors import ProfileError
from kdcli.run.stage import Files, RunContext, Stage, if_local

if TYPE_CHECKING:
    from kdcli.config.schema import Settings

_LABELS = ("task.gold", "task.labels", "task.names", "task.score_range", "task.drop_labels", "task.multi_label")
_COLUMNS = ("task.layout", "task.text_columns", "task.label_column", "task.label_columns")
_FIELDS = ("task.quoting", "task.separator")
TABLES = ("task.kind", *_LABELS, *_COLUMNS, *_FIELDS)
"""The settings that decide what a table of the task says."""


class Lite(Stage):
    """Fabricate texts by rules (Tang et al. 2019, section "Data Augmentation for Distillation")."""

    name = "lite"
    command = "kd transfer lite"
    result = "kdcli.transfer.lite:LiteResult"
    settings = (*TABLES, "transfer.lite", "seed")
    plugin = "taggers"
    reads = ("train", "dev", "test")
    makes = ("lite",)
    method = "lite"
    together = True

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.lite import fabricate

        settings = run.settings.transfer.lite
        return fabricate(settings=settings, seed=run.seed, resume=run.resume, **_texts(run, "lite"))


class Cache(Stage):
    """Gather the task's texts as a generator learns them (Tang, Lu, Lin 2019)."""

    name = "cache"
    command = "kd transfer heavy --only cache"
    result = "kdcli.transfer.heavy:CacheResult"
    settings = (*TABLES, "transfer.heavy.labels")
    reads = ("train", "dev", "test")
    makes = ("cache",)
    method = "heavy"

    def applies(self, settings: Settings) -> bool:
        return super().applies(settings) or _orders_corpus(settings)

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.heavy import cache

        splits, labels = run.read_all("train", "dev", "test"), run.settings.transfer.heavy.labels
        return cache(splits=splits, labels=labels, **run.common("cache"))


class FineTune(Stage):
    """Fine-tune the generator on the task's texts."""

    name = "fine-tune"
    command = "kd transfer heavy --only fine-tune"
    result = "kdcli.transfer.heavy:FineTuneResult"
    settings = ("seed", "precision")
    plugin = "generators"
    reads = ("cache",)
    makes = ("generator",)
    method = "heavy"
    together = True

    def applies(self, settings: Settings) -> bool:
        return Cache().applies(settings)

    def inputs(self, run: RunContext) -> Files:
        """Add the models and tokenizers that the plugin's options name; only the plugin knows which of them do."""
        named: Files = {}
        for key, value in self.parameters(run).items():
            named |= if_local(key.rpartition(".")[2], value)
        return super().inputs(run) | named

    def run(self, run: RunContext) -> Any:
        return _generator(run).fine_tune(_corpus(run), run.path("generator"), run.reporter)


class Prefixes(Stage):
    """Count what the task's texts begin with."""

    name = "prefixes"
    command = "kd transfer heavy --only prefixes"
    result = "kdcli.transfer.heavy:PrefixResult"
    plugin = "generators"
    reads = ("cache", "generator")
    makes = ("prefixes",)
    method = "heavy"

    def run(self, run: RunContext) -> Any:
        return _generator(run).prefixes(_corpus(run), run.path("generator"), run.path("prefixes"), run.reporter)


class Sample(Stage):
    """Sample texts from the generator."""

    name = "sample"
    command = "kd transfer heavy --only sample"
    result = "kdcli.transfer.sampling:SampleResult"
    settings = (*TABLES, "transfer.heavy", "seed", "precision")
    without = ("transfer.heavy.labels",)
    plugin = "generators"
    reads = ("generator", "prefixes", "train", "dev", "test")
    makes = ("heavy",)
    method = "heavy"
    together = True

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.sampling import draw_samples

        return draw_samples(
            generator=_generator(run),
            checkpoint=run.path("generator"),
            prefixes=run.path("prefixes"),
            settings=run.settings.transfer.heavy,
            **_texts(run, "heavy"),
        )


class TakeCorpus(Stage):
    """Take texts of the user's own, the nearest to the task first if asked."""

    name = "corpus"
    command = "kd transfer corpus"
    result = "kdcli.transfer.corpus:CorpusResult"
    settings = (*TABLES, "transfer.corpus", "seed")
    without = ("transfer.corpus.files",)
    reads = ("train", "dev", "test")
    makes = ("corpus",)
    method = "corpus"

    def inputs(self, run: RunContext) -> Files:
        """Add the user's files (none is a ``ProfileError``), and the generator where it orders their texts."""
        files = run.settings.transfer.corpus.files
        if not files:
            hint = "name some with `kd transfer corpus --input FILE`, or in the profile"
            raise ProfileError("no files to take texts from", key="transfer.corpus.files", hint=hint)
        named = {f"corpus {number}": Path(name).expanduser() for number, name in enumerate(files, 1)}
        made = Sample().inputs(run) if _orders_corpus(run.settings) else {}
        return {**named, **{name: path for name, path in made.items() if name != "prefixes"}, **super().inputs(run)}

    def parameters(self, run: RunContext) -> dict[str, Any]:
        """Add the generator's settings where it orders the texts."""
        generator = FineTune().parameters(run) if _orders_corpus(run.settings) else {}
        return super().parameters(run) | generator

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.corpus import from_corpus

        bits = None
        if _orders_corpus(run.settings):
            generator = _generator(run)
            bits = generator.bits(generator.load(run.path("generator"), run.reporter))
        settings, bad_rows = run.settings.transfer.corpus, run.settings.task.bad_rows
        return from_corpus(settings=settings, seed=run.seed, bits=bits, bad_rows=bad_rows, **_texts(run, "corpus"))


class Mix(Stage):
    """Join the tables of several methods, each text once."""

    name = "mix"
    command = "kd run-all --only mix"
    result = "kdcli.transfer.cleaning:MixResult"
    settings = ("task.kind",)
    makes = ("transfer",)

    def applies(self, settings: Settings) -> bool:
        return len(settings.transfer.methods) > 1

    def inputs(self, run: RunContext) -> Files:
        """Return the tables of the methods, in the order in which they are joined."""
        return run.files(*run.settings.transfer.methods)

    def run(self, run: RunContext) -> Any:
        from kdcli.transfer.cleaning import mix

        return mix(sets=self.inputs(run), **run.common("transfer"))


def _texts(run: RunContext, method: str) -> dict[str, Any]:
    """Return the arguments that the functions that make texts share."""
    held_out = list(run.read_all("dev", "test").values())
    return {"train": run.read("train"), "held_out": held_out, **run.common(method)}


def _orders_corpus(settings: Settings) -> bool:
    """Return whether the generator puts the texts of a corpus in order."""
    return "corpus" in settings.transfer.methods and settings.transfer.corpus.order_by == "lm"


def _generator(run: RunContext) -> Any:
    from kdcli.transfer.heavy import GeneratorRun

    return GeneratorRun.of(run.settings, run.task, device=run.device, seed=run.seed, resume=run.resume)


def _corpus(run: RunContext) -> Any:
    from kdcli.transfer.heavy import read_corpus

    return read_corpus(run.path("cache"), run.task)
