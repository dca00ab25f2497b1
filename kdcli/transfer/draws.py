"""The draws of ``kd transfer heavy``, in resumable parts: how each is made, and when there are enough.

How many parts it takes shows only as they are made, since draws are rejected and come to texts that are there already.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kdcli import registry
from kdcli.api import Part, Sampler, Samples, Task
from kdcli.errors import KdError
from kdcli.parts.parts import Parts
from kdcli.tables.strings import is_unicode
from kdcli.transfer.cleaning import clean, split_pair
from kdcli.transfer.keys import Keys, keys

HALVINGS = 3
"""The first part has an eighth of the draws, the next a quarter, ...: a generator that is no good is found out soon."""
LEAST_NEW = 0.01
"""The share of a part's draws that must be new texts, or else the sampling would go on and on."""


def size_of(part: int, most: int) -> int:
    """Return how many draws a part has, where the largest have ``most``."""
    return most >> max(HALVINGS - part, 0)


def first_of(part: int, most: int) -> int:
    """Return the number of a part's first draw: how many the parts before it have."""
    return sum(size_of(earlier, most) for earlier in range(part))


@dataclass(frozen=True)
class MakePart:
    """Makes a part: draws, what is left of them when they are clean, and their keys.

    Attributes:
        generator: The plugin's name, for errors.
        sampler: Draws.
        starts: What samples begin with.
        task: The task.
        most: Draws of the largest parts.
        seed: The seed of the whole sampling.
    """

    generator: str
    sampler: Sampler
    starts: dict[str, Any]
    task: Task
    most: int
    seed: int

    def __call__(self, part: int, path: Path) -> None:
        """Write part ``part`` to ``path``.

        Raises:
            PluginError: The generator fails, loses draws or invents some, or its texts are none.
        """
        size = size_of(part, self.most)
        with registry.blaming("generators", self.generator, "sample"):
            drawn = self.sampler.sample(self.starts, Part(first_of(part, self.most), size, self.seed))
        if fault := fault_of(drawn, size, self.task):
            raise registry.breach("generators", self.generator, fault)
        texts, rejected = _cleaned(drawn, self.task)
        schema = pa.schema([*texts.schema, ("key", pa.uint64())])
        keyed = pa.record_batch([*texts.columns, pa.array(keys(texts.columns))], schema)
        with pa.ipc.new_file(str(path), schema) as writer:
            writer.write_batch(keyed, custom_metadata={"rejected": json.dumps(rejected)})


@dataclass(frozen=True)
class Drawn:
    """What a part holds.

    Attributes:
        texts: The clean texts, a column for each of the task's.
        keys: Their hashes.
        rejected: How many draws came to no text, by reason.
    """

    texts: pa.RecordBatch
    keys: Keys
    rejected: Counter[str]


def read_part(path: Path) -> Drawn:
    """Read a part."""
    with pa.OSFile(str(path)) as file:
        batch, metadata = pa.ipc.open_file(file).get_batch_with_custom_metadata(0)
        texts = batch.select(batch.schema.names[:-1])
        return Drawn(texts, batch["key"].to_numpy().copy(), Counter(json.loads(metadata[b"rejected"])))


@dataclass
class Tally:
    """What the parts have given, from the first on as far as they follow each other without a gap.

    Attributes:
        asked: How many new texts are asked for.
        most: Draws of the largest parts.
        old: Texts that are not new.
        news: New texts of each part.
        rejected: Draws that came to no text, by reason.
    """

    asked: int
    most: int
    old: Keys
    news: list[int] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)

    @property
    def draws(self) -> int:
        """The draws of all these parts."""
        return first_of(len(self.news), self.most)

    @property
    def rate(self) -> float:
        """The share of the draws that gave a new text."""
        return sum(self.news) / max(self.draws, 1)

    @property
    def complete(self) -> bool:
        """Whether there are as many new texts as are asked for."""
        return sum(self.news) >= self.asked

    def look(self, parts: Parts) -> int:
        """Look at the parts that have come, and return how many more of the texts asked for are there.

        Raises:
            KdError: A part gave next to no new text.
        """
        before = min(sum(self.news), self.asked)
        while not self.complete:
            try:
                drawn = read_part(parts.path(len(self.news)))
            except FileNotFoundError:  # not made yet, or put together by another shard just now
                break
            fresh = np.setdiff1d(drawn.keys, self.old)
            self.old = np.union1d(self.old, fresh)
            self.news.append(len(fresh))
            self.rejected += drawn.rejected
            if not self.complete and len(fresh) < LEAST_NEW * size_of(len(self.news) - 1, self.most):
                raise self._too_few()
        return min(sum(self.news), self.asked) - before

    def next_part(self, parts: Parts) -> int | None:
        """Return the part that this shard makes next, or None when it has none to make.

        Parts beyond those that any sampling takes are not shared out, since other shards may have ended by the time
        that they turn out to be needed: the last shard makes what is missing of them.
        """
        missing = parts.missing(self._wanted())
        mine = [part for part in missing if part % parts.shard.count == parts.shard.index]
        if mine or not missing:
            return mine[0] if mine else None
        surely = first_of(missing[0], self.most) < self.asked
        return missing[0] if not surely and parts.is_last() else None

    def _wanted(self) -> int:
        """Return how many parts it takes, if those to come are like the last one that is there."""
        part, lacking = len(self.news), float(self.asked - sum(self.news))
        rate = self.news[-1] / size_of(part - 1, self.most) if self.news else 1.0
        while lacking > 0:
            lacking -= rate * size_of(part, self.most)
            part += 1
        return part

    def _too_few(self) -> KdError:
        last, found = size_of(len(self.news) - 1, self.most), sum(self.news)
        what = f"{found} of {self.draws} draws gave a new text ({self.rate:.2%})"
        if last < self.draws:
            what += f", {self.news[-1]} of the last {last}"
        lost = self.rejected.total()
        if lost:
            what += f"; rejected: {', '.join(f'{count} {reason}' for reason, count in self.rejected.most_common())}"
        if lost > self.draws / 2:
            hint = "fine-tune the generator for longer, or with a larger max_length, if it is a language model; "
            hint += "else see why it rejects them"
        elif found:
            hint = f"the generator has little more to say: ask for no more, --num-samples {found}"
        else:
            hint = "the generator says what is there already: fine-tune it for less long, or raise --sample-temperature"
        return KdError(what, key="transfer.heavy.num_samples", hint=hint)


def fault_of(drawn: Any, size: int, task: Task) -> str:
    """Say how the answer of a generator breaks the contract; an empty text where it keeps it."""
    if not isinstance(drawn, Samples):
        return f"returns no Samples, but {type(drawn).__name__}"
    texts, rejected = drawn.texts, drawn.rejected
    if not isinstance(texts, list | tuple):
        return f"returns Samples whose texts are no list, but {type(texts).__name__}"
    if not isinstance(rejected, Mapping) or not all(_is_count(count) for count in rejected.values()):
        return f"returns Samples whose rejected are no counts by reason, but {rejected!r:.80}"
    if len(texts) + sum(rejected.values()) != size:
        return f"was asked for {size} draws, and accounts for {len(texts)} texts and the rejected {dict(rejected)}"
    for text in texts:
        if not isinstance(text, str):
            return f"draws a text that is no string, but {type(text).__name__}: {text!r:.80}"
        if not is_unicode(text):
            return f"draws a text with half of a surrogate pair, which is no character: {text!r:.80}"
    if task.kind == "single" and texts and all("\t" in text for text in texts):
        return f"draws single texts with tabs, which stand between the texts of a pair alone: {texts[0]!r:.80}"
    return ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _cleaned(drawn: Samples, task: Task) -> tuple[pa.RecordBatch, dict[str, int]]:
    """Clean the texts, and reject those that are none (Tang, Lu, Lin 2019, "Cleaning")."""
    rows: list[tuple[str, ...]]
    if task.kind == "pair":
        rows = [pair for text in drawn.texts if (pair := split_pair(text))]
        lost = {"not two texts with one tab": len(drawn.texts) - len(rows)}
    else:
        full = [(text, plain) for text in drawn.texts if (plain := clean(text))]
        rows = [(plain,) for text, plain in full if "\t" not in text]
        lost = {"blank": len(drawn.texts) - len(full), "a tab in a single text": len(full) - len(rows)}
    rejected = Counter(drawn.rejected) + Counter(lost)
    columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(len(task.columns))]
    return pa.record_batch(columns, list(task.columns)), dict(rejected)
