"""The last step of ``kd transfer heavy``: draw samples until there are as many new texts as were asked for.

The set that comes out is the first new texts in the order of the draws, so it depends neither on how many parts were
made beyond nor on who made them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from kdcli.api import QuietReporter, Reporter, Sampler, Task
from kdcli.config.schema import HeavySettings
from kdcli.files import sha256
from kdcli.parts.parts import ALONE, Parts, Shard
from kdcli.transfer.cleaning import clean_keys
from kdcli.transfer.draws import MakePart, Tally, first_of, read_part
from kdcli.transfer.gathering import new_texts, plain, select, try_out, write_report, write_set
from kdcli.transfer.heavy import Road, read_prefixes
from kdcli.transfer.keys import Keys
from kdcli.transfer.novelty import Novelty, novelty

DRAWS = {"cpu": 8_192}
"""Draws of a part: little is lost when a run is killed."""
DRAWS_ELSEWHERE = 65_536
"""Those of a part on a GPU, where they take as little time, and thousands run at once."""


@dataclass(frozen=True)
class SampleResult:
    """What was sampled.

    Attributes:
        rows: Rows of the table.
        originals: The training set's own, which come first and are all kept.
        samples: The new texts.
        draws: Texts that were begun.
        acceptance: The share of the draws that gave a new text; those in excess count too.
        rejected: Draws that came to no text, by reason.
        duplicates: Samples dropped because an earlier one says the same.
        train_copies: Those dropped because a training text does.
        held_out_copies: Those dropped because a dev or test text does.
        excess: New texts beyond the number asked for.
        novelty: How varied and how new the texts are.
    """

    rows: int
    originals: int
    samples: int
    draws: int
    acceptance: float
    rejected: dict[str, int]
    duplicates: int
    train_copies: int
    held_out_copies: int
    excess: int
    novelty: Novelty


def draw_samples(
    *,
    road: Road,
    checkpoint: Path,
    prefixes: Path,
    settings: HeavySettings,
    train: pa.Table,
    held_out: Sequence[pa.Table],
    task: Task,
    output: Path,
    shard: Shard = ALONE,
    reporter: Reporter | None = None,
) -> SampleResult | None:
    """Make a transfer set: the originals, then new texts sampled from a fine-tuned generator.

    A run that was stopped goes on where it was.

    Args:
        road: The generator.
        checkpoint: Its fine-tuned form.
        prefixes: What samples begin with, a JSON file.
        settings: How many texts, and which of them to keep.
        train: The training set: the task's text columns, and ``label``.
        held_out: The dev and test sets: none of their texts is kept.
        task: The task.
        output: The table to write, with ``source`` ``original`` or ``heavy``; what was done goes beside it, in
            ``NAME.report.json``.
        shard: This process's share of the draws.
        reporter: Told of the progress.

    Returns:
        What was made, or None where other shards are still at work.

    Raises:
        DataError: The checkpoint or the prefixes cannot be read; a text does not fit into a table of this form.
        KdError: The generator has next to nothing new to say; memory or disk space ran out.
        PluginError: The generator returns something else than it was asked for.
    """
    reporter = reporter or QuietReporter()
    train = plain(train, task)
    known = _Known(
        clean_keys([train], task), clean_keys([plain(table, task) for table in held_out], task), settings.keep_copies
    )
    starts, sampler = read_prefixes(prefixes), road.load(checkpoint, reporter)
    most = DRAWS.get(road.settings.device.partition(":")[0], DRAWS_ELSEWHERE)
    make_part = MakePart(road.generator, sampler, starts, task, most, road.settings.seed)
    tally = Tally(settings.num_samples, most, np.concatenate([known.old, known.held_out]))
    fingerprint = {
        "form": "kd.samples/1",
        "checkpoint": sha256(checkpoint)[:16],
        "prefixes": sha256(prefixes)[:16],
        **road.fingerprint(),
        "draws of a part": most,
        "keep_copies": settings.keep_copies,
        "training and held-out texts": known.digest(),
    }
    results: list[SampleResult] = []

    def assemble(paths: list[Path]) -> None:
        results.append(_assemble(paths, tally, known, road, sampler, train, task, output, reporter))

    folder, resume = output.with_name(f".{output.name}.samples"), road.settings.resume
    with Parts(folder, fingerprint, suffix=".arrow", shard=shard, resume=resume, reporter=reporter) as parts:
        if not parts.there():
            try_out(train, output, folder)
        with reporter.progress("sample", settings.num_samples, "new texts") as bar:
            bar.advance(tally.look(parts))
            while (part := tally.next_part(parts)) is not None:
                parts.make_one(part, make_part)
                bar.advance(tally.look(parts), accepted=f"{tally.rate:.1%}")
        if tally.complete:
            parts.assemble(len(tally.news), assemble)
    return results[0] if results else None


@dataclass(frozen=True)
class _Known:
    """The texts that there are, by their keys."""

    train: Keys
    held_out: Keys
    keep_copies: bool

    @property
    def old(self) -> Keys:
        """Those of the training set that are no news."""
        return self.train[:0] if self.keep_copies else self.train

    def digest(self) -> str:
        return hashlib.sha256(self.train.tobytes() + b"|" + self.held_out.tobytes()).hexdigest()[:16]


def _assemble(
    paths: Sequence[Path],
    tally: Tally,
    known: _Known,
    road: Road,
    sampler: Sampler,
    train: pa.Table,
    task: Task,
    output: Path,
    reporter: Reporter,
) -> SampleResult:
    """Write the report, then the transfer set: whoever finds that, finds both."""
    made = np.concatenate([read_part(path).keys for path in paths])
    new = new_texts(made, known.old, known.held_out)
    excess = np.flatnonzero(new.keep)[tally.asked :]
    new.keep[excess] = False

    def kept() -> Iterator[pa.RecordBatch]:
        return select((read_part(path).texts for path in paths), new.keep)

    found = novelty(
        samples=kept(),
        train=train,
        task=task,
        seed=road.settings.seed,
        raw=len(made),
        raw_in_train=int(np.isin(made, known.train).sum()),
        bits=road.bits(sampler),
        reporter=reporter,
    )
    draws = first_of(len(paths), tally.most)
    result = SampleResult(
        rows=len(train) + tally.asked,
        originals=len(train),
        samples=tally.asked,
        draws=draws,
        acceptance=(tally.asked + len(excess)) / draws,
        rejected=dict(tally.rejected),
        duplicates=new.duplicates,
        train_copies=new.train_copies,
        held_out_copies=new.held_out_copies,
        excess=len(excess),
        novelty=found,
    )
    write_report(output, result)
    with reporter.progress("assemble", result.rows) as bar, write_set(output, train) as writer:
        bar.advance(result.originals)
        for texts in kept():
            writer.write(texts, "heavy")
            bar.advance(texts.num_rows)
    return result
