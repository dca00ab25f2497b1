"""The parts put together: the last pass of ``transfer lite``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli.api import Reporter
from kdcli.data.files import atomic
from kdcli.data.tables import write_table
from kdcli.transfer.keys import Keys, normal_keys
from kdcli.transfer.making import read_blocks
from kdcli.transfer.rules import RULES

EXAMPLES = 6
LOOKED_AT = 10 * EXAMPLES


@dataclass(frozen=True)
class LiteResult:
    """What ``transfer lite`` made.

    Attributes:
        rows: Rows of the table.
        originals: The training set's own, which come first and are all kept.
        fabricated: The texts that the rules made and that were kept.
        counts: Over all that were made: the ``words`` they have, ``words_masked``, ``words_replaced`` by one drawn
            for the same part of speech (it may be the same one), ``texts_cut`` to an n-gram.
        duplicates: Made texts dropped because an original or an earlier one says the same.
        held_out_copies: Made texts dropped because a dev or test text says the same.
        drop_rate: Share of the made texts that were dropped.
        examples: ``rules`` (masked, replaced, cut), ``before`` and ``after`` of some kept texts; the texts of a pair
            stand around a ``|``.
    """

    rows: int
    originals: int
    fabricated: int
    counts: dict[str, int]
    duplicates: int
    held_out_copies: int
    drop_rate: float
    examples: list[dict[str, Any]]


def try_out(train: pa.Table, output: Path, folder: Path) -> None:
    """Write the originals alone into ``folder``, to learn before the work whether a table of this form can hold them.

    Raises:
        DataError: It cannot.
    """
    with write_table(folder / f"originals-{output.name}", _schema(train)) as writer:
        for batch in _originals(train):
            writer.write(batch)


def gather(
    parts: Sequence[Path], *, train: pa.Table, held_out: Sequence[pa.Table], output: Path, reporter: Reporter
) -> LiteResult:
    """Write the transfer set: the originals, then the parts in order, without what was there before.

    Args:
        parts: The files of the parts.
        train: The text columns and ``label``.
        held_out: Tables with the same text columns, none of whose texts may be made.
        output: The table to write; the result goes beside it, with ``.report.json`` at the end.
        reporter: Told of the progress.
    """
    columns = _text_columns(train)
    held_out_keys = np.concatenate(
        [np.zeros(0, np.uint64), *(normal_keys(table.select(columns).columns) for table in held_out)]
    )
    made, counts, examples = _survey(parts)
    keep, duplicates, copies = distinct(made, normal_keys(train.select(columns).columns), held_out_keys)
    kept = int(keep.sum())
    with (
        reporter.progress("assemble", train.num_rows + kept) as progress,
        write_table(output, _schema(train)) as writer,
    ):
        for batch in _originals(train):
            writer.write(batch)
            progress.advance(batch.num_rows)
        for batch in _kept(parts, keep, _schema(train)):
            writer.write(batch)
            progress.advance(batch.num_rows)
    result = LiteResult(
        rows=train.num_rows + kept,
        originals=train.num_rows,
        fabricated=kept,
        counts=counts,
        duplicates=duplicates,
        held_out_copies=copies,
        drop_rate=1 - kept / len(made) if len(made) else 0.0,
        examples=[example for at, example in examples if keep[at]][:EXAMPLES],
    )
    with atomic(report_of(output)) as temporary:
        temporary.write_text(json.dumps(asdict(result), ensure_ascii=False, indent=2) + "\n", "utf-8")
    return result


def report_of(output: Path) -> Path:
    """Return where the result stands that belongs to a transfer set."""
    return output.with_name(f"{output.name}.report.json")


def distinct(made: Keys, originals: Keys, held_out: Keys) -> tuple[NDArray[np.bool_], int, int]:
    """Find the texts that say something new.

    Returns:
        ``[made]`` whether to keep each (the first of those that are equal), the number of duplicates, and the number
        of copies of held-out texts among the rest.
    """
    order = np.argsort(made, kind="stable")
    ranked = made[order]
    first = np.append(True, ranked[1:] != ranked[:-1])[: len(ranked)]
    order, ranked = order[first], ranked[first]
    new = ~_among(ranked, originals)
    copies = new & _among(ranked, held_out)
    keep = np.zeros(len(made), dtype=np.bool_)
    keep[order[new & ~copies]] = True
    return keep, len(made) - int(new.sum()), int(copies.sum())


def _among(wanted: Keys, keys: Keys) -> NDArray[np.bool_]:
    """Return whether each of ``wanted`` is one of ``keys``."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.bool_)
    there = np.sort(keys)
    places = np.minimum(np.searchsorted(there, wanted), len(there) - 1)
    return np.equal(there[places], wanted)


def _survey(parts: Sequence[Path]) -> tuple[Keys, dict[str, int], list[tuple[int, dict[str, Any]]]]:
    """Read the keys of all made texts, the sums of the counts, and the examples with the places of their texts."""
    found = [np.zeros(0, np.uint64)]
    counts = Counter(dict.fromkeys(("words", *RULES.values()), 0))
    examples: list[tuple[int, dict[str, Any]]] = []
    seen = 0
    for part in parts:
        for block in read_blocks(part):
            found.append(block.keys.copy())  # or the block's texts would stay in memory too
            counts.update(block.counts)
            if len(examples) < LOOKED_AT:
                for example in block.examples:
                    examples.append((seen + example.pop("row"), example))
            seen += len(block.keys)
    return np.concatenate(found), dict(counts), examples


def _text_columns(train: pa.Table) -> list[str]:
    return [name for name in train.schema.names if name != "label"]


def _schema(train: pa.Table) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in [*_text_columns(train), "source", "label"]])


def _originals(train: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in train.to_batches():
        source = pa.array(["original"] * batch.num_rows)
        yield pa.record_batch([*batch.columns[:-1], source, batch.columns[-1]], _schema(train))


def _kept(parts: Sequence[Path], keep: NDArray[np.bool_], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    seen = 0
    for part in parts:
        for block in read_blocks(part):
            chosen = pa.array(keep[seen : seen + len(block.keys)])
            seen += len(chosen)
            texts = block.texts.filter(chosen)
            source, label = pa.array(["lite"] * texts.num_rows, pa.string()), pa.nulls(texts.num_rows, pa.string())
            yield pa.record_batch([*texts.columns, source, label], schema)
