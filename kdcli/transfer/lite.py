"""``kd transfer lite``: texts fabricated by rules (Tang et al. 2019, section "Method").

Three passes: the training texts are cut into words and tagged; from each, ``n_iter`` texts are made; what is new
among them is written behind the originals. The first two work on resumable parts in several processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa

from kdcli import registry
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import LiteSettings
from kdcli.files import atomic
from kdcli.parts.parts import ALONE, Parts, Shard, processes, usable_cores
from kdcli.tables.hashing import row_hashes
from kdcli.transfer.gathering import LiteResult, gather, plain, try_out
from kdcli.transfer.making import MakePart, plan
from kdcli.transfer.rules import Rules
from kdcli.transfer.tagging import ROWS, TagPart
from kdcli.transfer.unigrams import count_unigrams


def fabricate(
    *,
    train: pa.Table,
    held_out: Sequence[pa.Table],
    task: Task,
    settings: LiteSettings,
    seed: int,
    output: Path,
    shard: Shard = ALONE,
    resume: bool = True,
    reporter: Reporter | None = None,
) -> LiteResult | None:
    """Make a transfer set: the originals, then texts that the rules make of them.

    The table depends on the texts, the settings (but for ``workers``) and the seed alone. A run that was stopped
    goes on where it was.

    Args:
        train: The training set: the task's text columns, and ``label``.
        held_out: The dev and test sets, with the same text columns: none of their texts is made.
        task: The task.
        settings: The rules' settings.
        seed: Of all random draws.
        output: The table to write: the text columns, ``source`` (``original`` or ``lite``), ``label`` (the originals'
            own, null for the others); what was done goes beside it, in ``NAME.report.json``.
        shard: This process's share of the work; all of it by default.
        resume: Go on with what a killed run left; False starts again.
        reporter: Told of the progress.

    Returns:
        What was made, or None where other shards are still at work, or put the table together.

    Raises:
        PluginError: There is no such tagger.
        MissingError: The tagger's data is not there.
        DataError: A text does not fit into a table of this form.
        KdError: The same work is being done by another process, or the disk is full.
    """
    reporter = reporter or QuietReporter()
    train, held_out = plain(train, task), [plain(table, task) for table in held_out]
    fingerprint = {
        "form": "kd.lite/1",
        "training texts": hashlib.sha256(row_hashes(train.select(task.columns).columns).tobytes()).hexdigest()[:16],
        "columns": task.columns,
        "seed": seed,
        **settings.model_dump(exclude={"workers"}),
        **registry.versions("taggers", settings.tagger),
    }
    slices = plan(train.num_rows, settings.n_iter)
    workers = settings.workers or usable_cores()
    results: list[LiteResult] = []
    folder = output.with_name(f"{output.name}.parts")
    with Parts(folder, fingerprint, suffix=".arrow", shard=shard, resume=resume, reporter=reporter) as parts:
        try_out(train, output, folder)
        if slices:
            with processes(workers) if workers > 1 else nullcontext(1) as pool:
                tagged = _tag(folder, train.select(task.columns), settings, pool, shard, reporter)
                make = MakePart(*tagged, tuple(slices), _rules(settings), settings.n_iter, seed)
                sizes = [taken.rows * settings.n_iter for taken in slices]
                parts.make(sizes, make, title="fabricate", unit="texts", workers=pool)

        def assemble(paths: list[Path]) -> None:
            results.append(gather(paths, train=train, held_out=held_out, output=output, reporter=reporter))

        parts.assemble(len(slices), assemble)
    return results[0] if results else None


def _tag(
    folder: Path, texts: pa.Table, settings: LiteSettings, pool: int | Executor, shard: Shard, reporter: Reporter
) -> tuple[Path, Path, tuple[Path, ...]]:
    """Tag the training texts and count the words of each tag, into files in ``folder`` that all processes read.

    Returns:
        The texts, the counts, and the parts with the tagged words.
    """
    texts_file, counts_file = folder / "texts.arrow", folder / "unigrams.arrow"
    batches = texts.combine_chunks().to_batches(max_chunksize=ROWS)
    _write(texts_file, batches)
    with Parts(folder / "tags", {}, suffix=".arrow", shard=shard, reporter=reporter) as parts:
        sizes = [batch.num_rows for batch in batches]
        make = TagPart(texts_file, settings.tagger, settings.words)
        # Every shard needs the words of the whole training set.
        parts.make(sizes, make, title="tag", unit="rows", workers=pool, of_all=True)
        tagged = tuple(parts.path(part) for part in range(len(batches)))
    _write(counts_file, count_unigrams(tagged, texts.schema.names).combine_chunks().to_batches())
    return texts_file, counts_file, tagged


def _write(path: Path, batches: list[pa.RecordBatch]) -> None:
    """Write an Arrow file, unless it is there: its name stands for what is in it."""
    if not path.exists():
        with atomic(path) as temporary, pa.ipc.new_file(str(temporary), batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)


def _rules(settings: LiteSettings) -> Rules:
    shortest, longest = map(int, settings.ngram.split(":"))
    return Rules(settings.p_mask, settings.p_pos, settings.p_ngram, shortest, longest)
