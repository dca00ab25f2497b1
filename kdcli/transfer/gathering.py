"""Transfer sets put together: the originals, then the texts made that say something new.

``write_set``, ``new_texts``, ``select`` and ``write_report`` serve every method; ``gather`` is the last pass of
``transfer lite``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdcli.api import Reporter, Task
from kdcli.files import atomic
from kdcli.tables.read import TableWriter, write_table
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
    with write_set(folder / f"originals-{output.name}", train):
        pass


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
    made, counts, examples = _survey(parts)
    keep, duplicates, copies = distinct(made, keys_of([train], columns), keys_of(held_out, columns))
    kept = int(keep.sum())
    with reporter.progress("assemble", train.num_rows + kept) as progress, write_set(output, train) as writer:
        progress.advance(train.num_rows)
        for texts in select((block.texts for part in parts for block in read_blocks(part)), keep):
            writer.write(texts, "lite")
            progress.advance(texts.num_rows)
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
    write_report(output, result)
    return result


def plain(table: pa.Table, task: Task) -> pa.Table:
    """Take the text columns of a table, and its ``label`` if it has one, as text; a null text is empty."""
    texts = {name: pc.fill_null(table[name].cast(pa.string()), "") for name in task.columns}
    return pa.table(texts | ({"label": table["label"].cast(pa.string())} if "label" in table.schema.names else {}))


def set_schema(columns: Sequence[str]) -> pa.Schema:
    """Return the columns of a transfer set with such text columns."""
    return pa.schema([(name, pa.string()) for name in [*columns, "source", "label"]])


class SetWriter:
    """Takes the texts made, behind the originals of a transfer set."""

    def __init__(self, writer: TableWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema

    def write(self, texts: pa.RecordBatch, source: str) -> None:
        """Write texts that have no label.

        Args:
            texts: The text columns.
            source: The method that made them.
        """
        beside = [pa.array([source] * texts.num_rows, pa.string()), pa.nulls(texts.num_rows, pa.string())]
        self._writer.write(pa.record_batch([*texts.columns, *beside], self._schema))


@contextmanager
def write_set(output: Path, train: pa.Table) -> Iterator[SetWriter]:
    """Write a transfer set: the originals at once, then the texts that the block gives.

    Args:
        output: The table to write; it takes its place when the block ends well.
        train: The text columns and ``label``.

    Raises:
        DataError: A text does not fit into a table of this form.
        KdError: The disk is full, or the folder cannot be written.
    """
    schema = set_schema(_text_columns(train))
    with write_table(output, schema) as writer:
        for batch in train.to_batches():
            source = pa.array(["original"] * batch.num_rows, pa.string())
            writer.write(pa.record_batch([*batch.columns[:-1], source, batch.columns[-1]], schema))
        yield SetWriter(writer, schema)


def write_report(output: Path, result: Any) -> None:
    """Write what was done, a dataclass of JSON values, beside a transfer set."""
    with atomic(report_of(output)) as temporary:
        temporary.write_text(json.dumps(asdict(result), ensure_ascii=False, indent=2) + "\n", "utf-8")


def report_of(output: Path) -> Path:
    """Return where the result stands that belongs to a transfer set."""
    return output.with_name(f"{output.name}.report.json")


def keys_of(tables: Sequence[pa.Table], columns: Sequence[str]) -> Keys:
    """Hash the texts of all rows of some tables, their white space made equal."""
    found = [normal_keys(table.select(list(columns)).columns) for table in tables]
    return np.concatenate([np.zeros(0, np.uint64), *found])


def select(batches: Iterable[pa.RecordBatch], keep: NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    """Give the rows to keep of some batches, of which ``keep`` counts all rows."""
    seen = 0
    for batch in batches:
        yield batch.filter(pa.array(keep[seen : seen + batch.num_rows]))
        seen += batch.num_rows


@dataclass(frozen=True)
class NewTexts:
    """Which texts say something new, and why the others do not.

    Attributes:
        keep: ``[texts]`` whether to keep each; of equal ones it is the first.
        duplicates: Those that an earlier one is equal to.
        train_copies: Texts of the training set among the rest.
        held_out_copies: Held-out texts among the rest.
    """

    keep: NDArray[np.bool_]
    duplicates: int
    train_copies: int
    held_out_copies: int


def new_texts(made: Keys, originals: Keys, held_out: Keys) -> NewTexts:
    """Find the texts that say something new."""
    order = np.argsort(made, kind="stable")
    ranked = made[order]
    first = np.append(True, ranked[1:] != ranked[:-1])[: len(ranked)]
    order, ranked = order[first], ranked[first]
    old = _among(ranked, originals)
    copies = ~old & _among(ranked, held_out)
    keep = np.zeros(len(made), dtype=np.bool_)
    keep[order[~old & ~copies]] = True
    return NewTexts(keep, len(made) - len(ranked), int(old.sum()), int(copies.sum()))


def distinct(made: Keys, originals: Keys, held_out: Keys) -> tuple[NDArray[np.bool_], int, int]:
    """Find the texts that say something new.

    Returns:
        ``[made]`` whether to keep each (the first of those that are equal), the number of duplicates, and the number
        of copies of held-out texts among the rest.
    """
    new = new_texts(made, originals, held_out)
    return new.keep, new.duplicates + new.train_copies, new.held_out_copies


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
