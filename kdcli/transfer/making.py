"""Texts made by the rules: the second pass of ``transfer lite``.

A part of this pass holds all texts made from some rows of the training set. It depends on the seed, the options and
its own number, and on nothing that other parts draw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdcli.transfer.keys import Keys, keys, normal_keys
from kdcli.transfer.rules import RULES, Rewriter, Rewritten, Rules
from kdcli.transfer.tagging import ROWS, read_words
from kdcli.transfer.unigrams import Unigrams

TEXTS = 131_072
"""Texts of a part, about."""
BLOCK = 1_000_000
"""Words that are rewritten together, about: what bounds the memory."""


@dataclass(frozen=True)
class Slice:
    """The rows of the training set that one part is made from, all in one part of the tagging pass.

    Attributes:
        tagged: The number of that part.
        first: The first row, counted within it.
        rows: The number of rows.
    """

    tagged: int
    first: int
    rows: int


def plan(rows: int, n_iter: int) -> list[Slice]:
    """Cut the training set into parts of about ``TEXTS`` new texts each."""
    slices: list[Slice] = []
    pieces = max(1, -(-ROWS * n_iter // TEXTS))
    for tagged in range(-(-rows // ROWS) if n_iter else 0):
        here = min(ROWS, rows - tagged * ROWS)
        bounds = [here * piece // pieces for piece in range(pieces + 1)]
        slices += [Slice(tagged, a, b - a) for a, b in pairwise(bounds) if b > a]
    return slices


@dataclass
class Block:
    """Some of the texts of a part.

    Attributes:
        texts: The text columns.
        keys: ``uint64 [texts]`` hashes of the texts with their white space made equal.
        counts: What each rule did.
        examples: For some rows, which rules made them of what: ``row``, ``rules``, ``before``, ``after``.
    """

    texts: pa.RecordBatch
    keys: Keys
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class MakePart:
    """Makes a part: the texts of one slice, in order of row and iteration.

    Attributes:
        texts: An Arrow file with the training texts, a batch for each part of the tagging pass.
        unigrams: An Arrow file with the words of each part of speech.
        tagged: The parts of the tagging pass.
        slices: The slice of each part.
        rules: How often each rule applies.
        n_iter: The number of texts made from each row.
        seed: Of all random numbers.
    """

    texts: Path
    unigrams: Path
    tagged: tuple[Path, ...]
    slices: tuple[Slice, ...]
    rules: Rules
    n_iter: int
    seed: int

    def __call__(self, part: int, path: Path) -> None:
        """Write part ``part`` to ``path``."""
        taken = self.slices[part]
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(part,))))
        originals = read_batch(self.texts, taken.tagged)
        names = originals.schema.names
        unigrams = Unigrams(read_batch(self.unigrams, 0))
        rewriters = [Rewriter(read_words(self.tagged[taken.tagged], name), unigrams, self.rules) for name in names]
        rows = taken.first + np.repeat(np.arange(taken.rows), self.n_iter)
        turns = np.tile(np.arange(self.n_iter), taken.rows)
        lengths = np.sum([rewriter.lengths[rows] for rewriter in rewriters], axis=0)
        cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // BLOCK)) + 1
        schema = pa.schema([*originals.schema, ("key", pa.uint64())])
        with pa.ipc.new_file(str(path), schema) as writer:
            for block_rows, block_turns in zip(np.split(rows, cuts), np.split(turns, cuts), strict=True):
                block = _make_block(rewriters, originals, block_rows, block_turns, random)
                keyed = pa.record_batch([*block.texts.columns, pa.array(block.keys)], schema)
                about = json.dumps({"counts": block.counts, "examples": block.examples})
                writer.write_batch(keyed, custom_metadata={"block": about})


def read_blocks(path: Path) -> Iterator[Block]:
    """Read a part, a block after the other."""
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            batch, metadata = reader.get_batch_with_custom_metadata(i)
            texts = batch.select(batch.schema.names[:-1])
            yield Block(texts, batch["key"].to_numpy(), **json.loads(metadata[b"block"]))


def read_batch(path: Path, number: int) -> pa.RecordBatch:
    """Read one batch of an Arrow file."""
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(number)


def _make_block(
    rewriters: Sequence[Rewriter],
    originals: pa.RecordBatch,
    rows: NDArray[np.int64],
    turns: NDArray[np.int64],
    random: np.random.Generator,
) -> Block:
    """Make a text of each of ``rows``; of a pair, turns 0, 1, 2 edit the first, the second, both."""
    made = [
        rewriter.rewrite(rows, (turns % 3 != 1 - side) | (len(rewriters) == 1), random)
        for side, rewriter in enumerate(rewriters)
    ]
    texts = pa.record_batch([side.texts for side in made], originals.schema)
    counts = {counted: sum(len(side.touched[rule]) for side in made) for rule, counted in RULES.items()}
    hash_texts = keys if all(rewriter.usual for rewriter in rewriters) else normal_keys
    return Block(
        texts,
        hash_texts(texts.columns),
        counts | {"words": sum(side.words for side in made)},
        _examples(made, originals, texts, rows),
    )


def _examples(
    made: Sequence[Rewritten], originals: pa.RecordBatch, texts: pa.RecordBatch, rows: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Take the first text that each rule has touched."""
    touched = {rule: np.concatenate([side.touched[rule] for side in made]) for rule in RULES}
    chosen = sorted({int(where.min()) for where in touched.values() if len(where)})
    return [
        {
            "row": row,
            "rules": [rule for rule, where in touched.items() if row in where],
            "before": " | ".join(column[int(rows[row])].as_py() for column in originals.columns),
            "after": " | ".join(column[row].as_py() for column in texts.columns),
        }
        for row in chosen
    ]
