"""``kd transfer lite``: texts fabricated by rules (Tang et al. 2019, section "Method").

The training texts are cut into words and tagged; from each, ``n_iter`` texts are made; the new ones among them are
written after the originals. Tagging and making work on resumable parts in several processes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from kdcli import registry
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.transfer import LiteSettings
from kdcli.files import atomic
from kdcli.parts import Engine, Loaded, LocalEngine, Parts, usable_cores
from kdcli.tables.parquet import stream
from kdcli.tables.text_hash import text_hash
from kdcli.transfer import cleaning
from kdcli.transfer.rules import ROWS, Indexes, Rewriter, Rules, TaggedWords, TagPart, Unigrams

TEXTS = 131_072  # texts of a part, about
BLOCK = 1_000_000  # words that are rewritten together, about: they bound the memory
EXAMPLES = 6
MADE = ("originals-*", "texts.parquet", "words.parquet", "unigrams.parquet", "tags/[0-9]*", "tags/*.json")
"""Files that this writes beside the parts, and those of the parts that tag."""
_RULES = ("masked", "replaced", "cut")
_COUNTS = {"words": "words", "masked": "words_masked", "replaced": "words_replaced", "cut": "texts_cut"}


@dataclass(frozen=True)
class LiteResult:
    """What ``transfer lite`` made."""

    rows: int
    originals: int  # training texts, which come first and are all kept
    fabricated: int  # the new texts that were kept
    counts: dict[str, int]  # over all texts made: words, words_masked, words_replaced, texts_cut (to an n-gram)
    duplicates: int  # dropped copies of an original or an earlier text
    held_out_copies: int  # dropped copies of dev or test texts
    drop_rate: float  # share of the texts made that were dropped
    examples: list[dict[str, Any]]  # rules (masked, replaced, cut), before and after of some kept texts


def fabricate(
    *,
    train: pl.DataFrame,
    held_out: Sequence[pl.DataFrame],
    task: Task,
    settings: LiteSettings,
    seed: int,
    output: Path,
    resume: bool = True,
    engine: "Engine | None" = None,
    reporter: Reporter = QuietReporter(),
) -> LiteResult:
    """Make a transfer set: the originals, then texts that the rules make of them, but none of the held-out texts.

    The table depends on the texts, the settings (but for ``workers``) and the seed alone. A run that was stopped goes
    on where it was, with ``resume``.
    """
    engine = engine or LocalEngine()
    train, held_out = cleaning.plain(train, task), [cleaning.plain(table, task) for table in held_out]
    texts = train.select(task.columns)
    fingerprint = {
        "form": "kd.lite/2",
        "training texts": hashlib.sha256(text_hash(texts.get_columns()).tobytes()).hexdigest()[:16],
        "columns": task.columns,
        "seed": seed,
        **settings.model_dump(exclude={"workers"}),
        **registry.versions("taggers", settings.tagger),
    }
    slices = plan(len(train), settings.n_iter)
    folder = output.with_name(f"{output.name}.parts")
    with engine, Parts(folder, fingerprint, more=MADE, resume=resume, engine=engine, reporter=reporter) as parts:
        cleaning.write_set(folder / f"originals-{output.name}", train, task)  # can a table of this form hold them?
        if slices:
            words, unigrams = tag(folder, texts, settings, engine, reporter)
            if cut := int(pl.read_parquet_metadata(unigrams)["cut"]):
                what = f"{cut:,} training texts have more than {settings.max_words} words"
                reporter.warn(f"{what} (transfer.lite.max_words): new texts are made of their beginnings")
            shortest, longest = map(int, settings.ngram.split(":"))
            rules = Rules(settings.p_mask, settings.p_pos, settings.p_ngram, shortest, longest)
            counts = Loaded(read_unigrams(unigrams), read_unigrams, (unigrams,), (unigrams,))
            make = MakePart(counts, task.columns, tuple(slices), rules, settings.n_iter, seed)

            def read(part: int) -> pl.DataFrame:
                first, rows = slices[part]
                return pl.scan_parquet(words).filter(pl.col("row").is_between(first, first + rows - 1)).collect()

            sizes = [rows * settings.n_iter for _, rows in slices]
            how: dict[str, Any] = {"workers": settings.workers or usable_cores(), "files": counts.files}
            parts.make(sizes, make, title="fabricate", unit="texts", read=read, **how)
        return parts.assemble(len(slices), lambda paths: gather(paths, train, held_out, task, output, reporter))


def tag(
    folder: Path, texts: pl.DataFrame, settings: LiteSettings, engine: Engine, reporter: Reporter
) -> tuple[Path, Path]:
    """Tag the words of the training texts, and count them by tag and word: two files."""
    words, unigrams = (folder / f"{name}.parquet" for name in ("words", "unigrams"))

    def assemble(paths: list[Path]) -> None:
        with atomic(words) as temporary:
            pl.scan_parquet(paths).sink_parquet(temporary, compression="lz4", row_group_size=TEXTS)
        counts = pl.scan_parquet(words).group_by("tag", "word").agg(pl.len().alias("count")).sort("tag", "word")
        cut = sum(int(pl.read_parquet_metadata(path)["cut"]) for path in paths)
        with atomic(unigrams) as temporary:
            counts.collect().write_parquet(temporary, metadata={"cut": str(cut)})

    if not unigrams.exists():
        with Parts(folder / "tags", {}, engine=engine, reporter=reporter) as parts:
            sizes = [min(ROWS, len(texts) - first) for first in range(0, len(texts), ROWS)]
            make = TagPart(settings.tagger, settings.words, settings.max_words, ROWS)
            read, workers = lambda part: texts[part * ROWS : (part + 1) * ROWS], settings.workers or usable_cores()
            parts.make(sizes, make, title="tag", read=read, workers=workers)
            parts.assemble(len(sizes), assemble)
    return words, unigrams


def read_unigrams(path: Path) -> Unigrams:
    """Read the counts of all words by tag."""
    return Unigrams(pl.read_parquet(path))


def plan(rows: int, n_iter: int) -> list[tuple[int, int]]:
    """Cut the training set into parts of about ``TEXTS`` new texts each: the first row and the number of rows."""
    slices: list[tuple[int, int]] = []
    pieces = max(1, -(-ROWS * n_iter // TEXTS))
    for first in range(0, rows if n_iter else 0, ROWS):
        here = min(ROWS, rows - first)
        bounds = [here * piece // pieces for piece in range(pieces + 1)]
        slices += [(first + a, b - a) for a, b in pairwise(bounds) if b > a]
    return slices


@dataclass(frozen=True)
class MakePart:
    """Makes a part: the texts of one slice, in order of row and iteration.

    It holds, beside the text columns, the ``key`` (see ``cleaning.keys``), the ``row`` of the original, and what the
    rules did: ``words`` kept, ``masked``, ``replaced``, and texts ``cut``.
    """

    unigrams: Loaded[Unigrams]
    columns: tuple[str, ...]
    slices: tuple[tuple[int, int], ...]
    rules: Rules
    n_iter: int
    seed: int

    def __call__(self, part: int, path: Path, tagged: pl.DataFrame) -> None:
        """Write part ``part``, of its tagged words, to ``path``."""
        texts = stream(self.blocks(part, tagged), _schema(self.columns))
        texts.sink_parquet(path, compression="uncompressed", row_group_size=16_384)

    def blocks(self, part: int, tagged: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Make the texts of a part, some at a time."""
        first, count = self.slices[part]
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=(part,))))
        columns = [tagged.filter(pl.col("column") == number) for number in range(len(self.columns))]
        texts = [TaggedWords.of(column, first, count) for column in columns]
        rewriters = [Rewriter(one, self.unigrams.value, self.rules) for one in texts]
        rows = np.repeat(np.arange(count), self.n_iter)
        turns = np.tile(np.arange(self.n_iter), count)
        lengths = np.sum([rewriter.lengths[rows] for rewriter in rewriters], axis=0)
        cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // BLOCK)) + 1
        for of_block, turn in zip(np.split(rows, cuts), np.split(turns, cuts), strict=True):
            yield self._block(rewriters, first, of_block, turn, random)

    def _block(
        self, rewriters: Sequence[Rewriter], first: int, rows: Indexes, turns: Indexes, random: np.random.Generator
    ) -> pl.DataFrame:
        """Make a text of each of ``rows``, from ``first``; of a pair, turns 0, 1, 2 edit the first, second, both."""
        sides = [
            rewriter.rewrite(rows, (turns % 3 != 1 - side) | (len(rewriters) == 1), random)
            for side, rewriter in enumerate(rewriters)
        ]
        frame = pl.DataFrame(dict(zip(self.columns, (side.texts for side in sides), strict=True)))
        numbers = {name: sum(getattr(side, name) for side in sides) for name in _COUNTS}
        usual, schema = all(rewriter.usual for rewriter in rewriters), _schema(self.columns)
        numbers |= {"key": cleaning.keys(frame, plain=usual), "row": rows + first}
        return frame.hstack(pl.DataFrame(numbers)).select(*schema).cast(pl.Schema(schema))


def gather(
    paths: list[Path],
    train: pl.DataFrame,
    held_out: Sequence[pl.DataFrame],
    task: Task,
    output: Path,
    reporter: Reporter,
) -> LiteResult:
    """Write the transfer set: the originals, then the parts in order, without copies of what was there before."""
    parts = pl.scan_parquet(paths) if paths else pl.LazyFrame(schema=_schema(task.columns))
    found = parts.select("key").collect()["key"].to_numpy()
    new = cleaning.new_texts(found, cleaning.hashes([train], task), cleaning.hashes(held_out, task))
    kept, made = int(new.keep.sum()), len(found)
    rows = len(train) + kept
    cleaning.warn_if_little(kept, made, reporter)
    with reporter.progress("assemble", rows) as progress:
        cleaning.write_set(output, train, task, "lite", cleaning.select(parts, new.keep))
        progress.advance(rows)
    sums = parts.select(pl.col(*_COUNTS).cast(pl.Int64).sum()).collect().row(0, named=True)
    return LiteResult(
        rows=rows,
        originals=len(train),
        fabricated=kept,
        counts={counted: int(sums[name]) for name, counted in _COUNTS.items()},
        duplicates=new.duplicates + new.train_copies,
        held_out_copies=new.held_out_copies,
        drop_rate=1 - kept / made if made else 0.0,
        examples=_examples(cleaning.select(parts, new.keep).head(1000).collect(), train, task),
    )


def _examples(texts: pl.DataFrame, train: pl.DataFrame, task: Task) -> list[dict[str, Any]]:
    """Show the first texts that each rule changed, of different originals, in their order."""
    numbered = texts.with_row_index("number")
    first = [numbered.filter(pl.col(rule) > 0).unique("row", keep="first", maintain_order=True) for rule in _RULES]
    chosen = pl.concat(found.head(EXAMPLES // 3) for found in first).unique("number").sort("number")
    before = cleaning.excerpts(train.select(pl.col(task.columns).gather(chosen["row"])))
    rows = zip(chosen.iter_rows(named=True), before, cleaning.excerpts(chosen.select(task.columns)), strict=True)
    return [
        {"rules": [rule for rule in _RULES if row[rule]], "before": original, "after": text}
        for row, original, text in rows
    ]


def _schema(columns: Sequence[str]) -> dict[str, Any]:
    numbers = dict.fromkeys(("row", *_COUNTS), pl.UInt32)
    return {**dict.fromkeys(columns, pl.String), "key": pl.UInt64, **numbers}
