"""The stages that make the transfer set, by the methods that a profile joins.

Each method has a table of its own, and the last stage makes the transfer set of them: so a run can go from one method
to another, and to several, and what it has is not made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli import registry
from kdcli.api import Reporter
from kdcli.errors import ProfileError
from kdcli.run.context import Ground, Stage, if_local, trains_together
from kdcli.run.lock import flat
from kdcli.tasks.split import SPLITS

TRANSFER = ("lite", "cache", "fine-tune", "prefixes", "sample", "corpus", "mix")
"""The stages in order; together they are called ``transfer``."""


@dataclass(frozen=True)
class TransferStages:
    """The making of the transfer set; each method describes one stage."""

    ground: Ground

    def stages(self) -> list[Stage]:
        """Return the stages of the profile's methods in order, and the one that makes the transfer set of theirs."""
        methods = self.ground.settings.transfer.methods
        generator = [self.cache, self.fine_tune]
        makers: dict[str, list[Callable[[], Stage]]] = {
            "lite": [self.lite],
            "heavy": [*generator, self.prefixes, self.sample],
            "corpus": [*(generator if self._asks_generator and "heavy" not in methods else []), self.corpus],
        }
        return [*(make() for method in methods for make in makers[method]), self.mix()]

    def lite(self) -> Stage:
        """Describe the texts fabricated by rules."""
        settings = self.ground.settings.transfer.lite

        def run(reporter: Reporter) -> Any:
            from kdcli.transfer.lite import fabricate

            return fabricate(
                train=self.ground.split("train", reporter),
                held_out=list(self.ground.splits("dev", "test", reporter=reporter).values()),
                task=self.ground.task,
                settings=settings,
                seed=self.ground.seed,
                output=self.ground.paths.lite,
                shard=self.ground.shard,
                resume=self.ground.resume,
                reporter=reporter,
            )

        parameters = {"seed": self.ground.seed, **self.ground.task_parameters()}
        parameters |= flat("transfer.lite", settings, without=("workers",))
        inputs = {**self.ground.data(), **registry.code_of("taggers", settings.tagger)}
        outputs = {"lite": self.ground.paths.lite}
        return Stage("lite", "lite", parameters, inputs, outputs, run, together=True)

    def cache(self) -> Stage:
        """Describe the task's texts as a generator learns them."""
        labels = self.ground.settings.transfer.heavy.labels

        def run(reporter: Reporter) -> Any:
            from kdcli.transfer.cache import cache

            splits = self.ground.splits(*SPLITS, reporter=reporter)
            return cache(
                splits=splits, task=self.ground.task, labels=labels, output=self.ground.paths.cache, reporter=reporter
            )

        parameters = {"transfer.heavy.labels": labels, **self.ground.task_parameters()}
        return Stage("cache", "cache", parameters, self.ground.data(), {"cache": self.ground.paths.cache}, run)

    def fine_tune(self) -> Stage:
        """Describe the fine-tuning of the generator."""

        def run(reporter: Reporter) -> Any:
            from kdcli.transfer.cache import read_corpus

            return self._road().fine_tune(
                read_corpus(self.ground.paths.cache, self.ground.task), self.ground.paths.generator, reporter
            )

        options = self._generator_parameters()
        parameters = {"seed": self.ground.seed, "precision": self.ground.settings.precision, **options}
        inputs = {"cache": self.ground.paths.cache, **self._generator_code()}
        for name, value in options.items():  # a model, a tokenizer: which of them name files, the plugin alone knows
            inputs |= if_local(name.rpartition(".")[2], value) if isinstance(value, str) else {}
        outputs = {"generator": self.ground.paths.generator}
        return Stage("fine-tune", "fine-tune", parameters, inputs, outputs, run, together=trains_together())

    def prefixes(self) -> Stage:
        """Describe what samples begin with."""

        def run(reporter: Reporter) -> Any:
            from kdcli.transfer.cache import read_corpus

            corpus = read_corpus(self.ground.paths.cache, self.ground.task)
            return self._road().prefixes(corpus, self.ground.paths.generator, self.ground.paths.prefixes, reporter)

        inputs = {"cache": self.ground.paths.cache, "generator": self.ground.paths.generator, **self._generator_code()}
        outputs = {"prefixes": self.ground.paths.prefixes}
        return Stage("prefixes", "prefixes", self._generator_parameters(), inputs, outputs, run)

    def sample(self) -> Stage:
        """Describe the texts sampled from the generator."""
        settings = self.ground.settings.transfer.heavy

        def run(reporter: Reporter) -> Any:
            from kdcli.transfer.samples import draw_samples

            return draw_samples(
                road=self._road(),
                checkpoint=self.ground.paths.generator,
                prefixes=self.ground.paths.prefixes,
                settings=settings,
                train=self.ground.split("train", reporter),
                held_out=list(self.ground.splits("dev", "test", reporter=reporter).values()),
                task=self.ground.task,
                output=self.ground.paths.heavy,
                shard=self.ground.shard,
                reporter=reporter,
            )

        parameters = {
            "seed": self.ground.seed,
            "precision": self.ground.settings.precision,
            **self._generator_parameters(),
            **self.ground.task_parameters(),
            **flat("transfer.heavy", settings, without=("labels", "batch_size")),
        }
        inputs = {
            "generator": self.ground.paths.generator,
            "prefixes": self.ground.paths.prefixes,
            **self._generator_code(),
            **self.ground.data(),
        }
        return Stage("sample", "sample", parameters, inputs, {"heavy": self.ground.paths.heavy}, run, together=True)

    def corpus(self) -> Stage:
        """Describe the texts taken from the user's own.

        Raises:
            ProfileError: No files of texts are named.
        """
        settings = self.ground.settings.transfer.corpus
        if not settings.files:
            hint = "name some with `kd transfer corpus --input FILE`, or in the profile"
            raise ProfileError("no files to take texts from", key="transfer.corpus.files", hint=hint)

        def run(reporter: Reporter) -> Any:
            from kdcli.transfer.corpus import from_corpus

            bits = None
            if settings.order_by == "lm":
                road = self._road()
                bits = road.bits(road.load(self.ground.paths.generator, reporter))
            return from_corpus(
                settings=settings,
                train=self.ground.split("train", reporter),
                held_out=list(self.ground.splits("dev", "test", reporter=reporter).values()),
                task=self.ground.task,
                seed=self.ground.seed,
                output=self.ground.paths.corpus,
                bits=bits,
                bad_rows=self.ground.settings.task.bad_rows,
                reporter=reporter,
            )

        files = {f"corpus {number}": Path(name).expanduser() for number, name in enumerate(settings.files, 1)}
        inputs = {**files, **self.ground.data()}
        parameters = {"seed": self.ground.seed, **self.ground.task_parameters()}
        parameters |= flat("transfer.corpus", settings, without=("files",))
        if self._asks_generator:
            inputs |= {"generator": self.ground.paths.generator, **self._generator_code()}
            parameters |= {"precision": self.ground.settings.precision, **self._generator_parameters()}
        return Stage("corpus", "corpus", parameters, inputs, {"corpus": self.ground.paths.corpus}, run)

    def mix(self) -> Stage:
        """Describe the transfer set: a method's own, or the join of several."""
        methods = self.ground.settings.transfer.methods
        sets: dict[str, Path] = {method: getattr(self.ground.paths, method) for method in methods}

        def run(reporter: Reporter) -> Any:
            from kdcli.transfer.mixing import mix

            return mix(sets=sets, task=self.ground.task, output=self.ground.paths.transfer, reporter=reporter)

        parameters = {"transfer.method": "+".join(methods), **self.ground.task_parameters()}
        return Stage("mix", "mix", parameters, sets, {"transfer": self.ground.paths.transfer}, run)

    @property
    def _asks_generator(self) -> bool:
        """Whether the corpus is ordered by the generator."""
        return (
            "corpus" in self.ground.settings.transfer.methods and self.ground.settings.transfer.corpus.order_by == "lm"
        )

    @property
    def _generator_name(self) -> str:
        return registry.table_name(self.ground.settings.transfer.generator)

    def _road(self) -> Any:
        from kdcli.transfer.heavy import Road

        return Road.of(
            self.ground.settings,
            self.ground.task,
            device=self.ground.device,
            seed=self.ground.seed,
            resume=self.ground.resume,
        )

    def _generator_code(self) -> dict[str, Path]:
        return registry.code_of("generators", self.ground.settings.transfer.generator)

    def _generator_parameters(self) -> dict[str, Any]:
        name = self.ground.settings.transfer.generator
        options = registry.options("generators", name, self.ground.settings.generators.get(self._generator_name, {}))
        return {
            "transfer.generator": name,
            **flat(f"generators.{self._generator_name}", options, without=("save_steps",)),
        }
