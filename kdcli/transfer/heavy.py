"""``kd transfer heavy``: texts sampled from a generator that has learned the task's (Tang, Lu, Lin 2019).

Four steps: the task's texts are cached, a generator is fine-tuned on them, what samples begin with is counted, and
samples are drawn. This module knows no generator by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli import registry
from kdcli.api import Corpus, GeneratorSettings, QuietReporter, Reporter, Sampler, Task
from kdcli.config.schema import Settings
from kdcli.errors import DataError, PluginError
from kdcli.files import atomic

if TYPE_CHECKING:
    from kdcli.transfer.nearness import Bits

SHOWN = 10
_CONTRACT = "kdcli.api says what a plugin returns"


@dataclass(frozen=True)
class FineTuneResult:
    """A fine-tuned generator.

    Attributes:
        generator: The plugin's name.
        texts: Texts it learned from.
        metrics: What the plugin found out: bits per character, word perplexity, how they were reached.
    """

    generator: str
    texts: int
    metrics: dict[str, Any]


@dataclass(frozen=True)
class PrefixResult:
    """What samples begin with.

    Attributes:
        texts: The training texts that were looked at.
        sizes: How many entries each list of the prefixes has.
        first: The first of each list.
    """

    texts: int
    sizes: dict[str, int]
    first: dict[str, list[Any]]


@dataclass(frozen=True)
class Road:
    """A generator with its settings: what the steps have in common.

    Attributes:
        generator: The plugin's name.
        settings: What it is fine-tuned and loaded with.
    """

    generator: str
    settings: GeneratorSettings

    @property
    def title(self) -> str:
        """What messages call it."""
        return registry.title("generators", self.generator)

    @classmethod
    def of(cls, settings: Settings, task: Task, *, device: str, seed: int, resume: bool = True) -> Road:
        """Take what a profile says.

        Raises:
            PluginError: There is no such generator.
            ProfileError: Its options are wrong.
        """
        name, heavy = settings.transfer.generator, settings.transfer.heavy
        options = registry.options("generators", name, settings.generators.get(registry.table_name(name), {}))
        return cls(
            name,
            GeneratorSettings(
                options=options,
                kind=task.kind,
                seed=seed,
                device=device,
                precision=settings.precision,
                resume=resume,
                temperature=heavy.temperature,
                top_k=heavy.top_k,
                top_p=heavy.top_p,
                batch_size=heavy.batch_size,
            ),
        )

    def fine_tune(self, corpus: Corpus, checkpoint: Path, reporter: Reporter | None = None) -> FineTuneResult:
        """Fine-tune the generator, into the folder ``checkpoint``.

        Raises:
            DataError: There are no texts, or the model's files are wrong.
            KdError: The training broke down; memory or disk space ran out; another process trains here.
            MissingError: The model or the device is not there.
            PluginError: The plugin keeps no checkpoint, or returns something that is no JSON.
        """
        plugin = registry.load("generators", self.generator)
        with registry.blaming("generators", self.generator, "fine_tune"):
            metrics = plugin.fine_tune(corpus, checkpoint, self.settings, reporter or QuietReporter())
        if not checkpoint.exists():
            raise PluginError(f"{self.title} was fine-tuned, and left nothing", file=checkpoint)
        self._json(metrics, "its fine-tuning")
        return FineTuneResult(self.generator, len(corpus.train), dict(metrics))

    def load(self, checkpoint: Path, reporter: Reporter | None = None) -> Sampler:
        """Load the fine-tuned generator.

        Raises:
            DataError: The folder holds no such generator.
            PluginError: The plugin fails, or loads something that draws no samples.
        """
        plugin = registry.load("generators", self.generator)
        with registry.blaming("generators", self.generator, "load"):
            sampler = plugin.load(checkpoint, self.settings, reporter or QuietReporter())
        if lacking := [name for name in ("starts", "sample") if not callable(getattr(sampler, name, None))]:
            what = f"{self.title} loads a {type(sampler).__name__}, which has no {' and no '.join(lacking)}"
            raise PluginError(what, hint=_CONTRACT)
        return sampler

    def bits(self, sampler: Sampler) -> Bits | None:
        """Return what gives the bits of texts, if the generator can tell them."""
        bits: Bits | None = getattr(sampler, "bits", None)
        return bits and registry.blaming("generators", self.generator, "bits")(bits)

    def prefixes(
        self, corpus: Corpus, checkpoint: Path, output: Path, reporter: Reporter | None = None
    ) -> PrefixResult:
        """Write what samples begin with as JSON: for a language model, how often each token comes first.

        Raises:
            DataError: The checkpoint holds no such generator.
            PluginError: The plugin returns something that is no JSON.
        """
        sampler = self.load(checkpoint, reporter)
        with registry.blaming("generators", self.generator, "starts"):
            starts = sampler.starts(corpus)
        text = self._json(starts, "what samples begin with")
        with atomic(output) as temporary:
            temporary.write_text(text + "\n", "utf-8")
        lists = {name: values for name, values in starts.items() if isinstance(values, list)}
        sizes = {name: len(values) for name, values in lists.items()}
        return PrefixResult(len(corpus.train), sizes, {name: values[:SHOWN] for name, values in lists.items()})

    def fingerprint(self) -> dict[str, Any]:
        """Return all settings that samples depend on, as JSON values by the names that the user knows."""
        plain = {field.name: getattr(self.settings, field.name) for field in fields(self.settings)}
        options = plain.pop("options").model_dump(mode="json")
        del plain["resume"]
        name = registry.table_name(self.generator)
        return {
            "generator": self.generator,
            **registry.versions("generators", self.generator),
            **plain,
            **{f"generators.{name}.{option}": value for option, value in options.items()},
            "device": self.settings.device.partition(":")[0],
        }

    def _json(self, value: Any, what: str) -> str:
        """Write a plugin's answer as JSON."""
        if not isinstance(value, Mapping):
            raise PluginError(f"{self.title} tells {what} in no table, but {type(value).__name__}", hint=_CONTRACT)
        try:
            return json.dumps(dict(value), ensure_ascii=False, indent=1)
        except (TypeError, ValueError) as error:
            raise PluginError(f"{self.title} tells {what} in no JSON: {error}", hint=_CONTRACT) from error


def read_prefixes(path: Path) -> dict[str, Any]:
    """Read what ``prefixes`` wrote.

    Raises:
        DataError: The file holds something else.
    """
    hint = "`kd transfer heavy --only prefixes --force` makes it again"
    try:
        starts = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"this is no file of prefixes: {error}", file=path, hint=hint) from error
    if not isinstance(starts, dict):
        raise DataError("this is no file of prefixes: it holds no table of them", file=path, hint=hint)
    return starts
