"""Clean and new texts: how every method makes texts plain, drops copies and writes its set, and sets are joined.

Samples and the user's own texts are cleaned (Tang, Lu, Lin 2019, "Cleaning"). The task's own texts stay as they are in
every table; ``one_line`` is for a generator's copy of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError
from kdcli.tables.parquet import scan, slices
from kdcli.tables.text_hash import first_of_equals, text_hash
from kdcli.tables.write import write_table

_WHITE = r"[\s\x1c-\x1f]"  # the characters at which str.split cuts
WORD = r"[^\s\x1c-\x1f]+"  # a word: what white space separates, as a regular expression
_CONTROLS = r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u{feff}]"
_LINE_ENDS = r"[\t-\r\x1c-\x1e\x85\u{2028}\u{2029}]+"  # those of str.splitlines, and the tab
SHOWN = 300  # characters of a text that a report shows
_ROWS = 65_536
Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]
_NONE = np.zeros(0, np.uint64)


def spaced(text: pl.Expr) -> pl.Expr:
    """Put one space between words and none at the ends, as ``" ".join(text.split())`` does."""
    return text.str.replace_all(f"{_WHITE}+", " ").str.strip_chars(" ")


def clean(text: pl.Expr) -> pl.Expr:
    """Drop control characters that are no white space, and byte order marks; then make the white space equal."""
    return spaced(text.str.replace_all(_CONTROLS, ""))


def split_pairs(texts: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
    """Cut pairs at their only tab and clean both sides; texts without one tab, or with a blank side, are left out."""
    pairs = texts.filter(texts.str.count_matches("\t", literal=True) == 1).str.split_exact("\t", 1)
    sides = pairs.struct.rename_fields(columns).struct.unnest().select(clean(pl.col(columns)))
    return sides.filter(pl.all_horizontal(pl.col(columns) != ""))


def one_line(text: pl.Expr) -> pl.Expr:
    """Bring a text of the task into one line without a tab or white space at its ends; all else stays."""
    return text.str.replace_all(_LINE_ENDS, " ").str.replace_all(f"^{_WHITE}+|{_WHITE}+$", "")


def plain(frame: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Select the text columns, and ``label`` if there is one, as text; a null text is empty."""
    texts = [pl.col(name).cast(pl.String).fill_null("") for name in task.columns]
    return frame.select(*texts, *(pl.col(name).cast(pl.String) for name in frame.columns if name == "label"))


def hashes(frames: Sequence[pl.DataFrame], task: Task) -> Hashes:
    """Return the ``keys`` of all rows of some tables."""
    return np.concatenate([_NONE, *(keys(frame.select(task.columns)) for frame in frames)])


def keys(texts: pl.DataFrame, *, plain: bool = False) -> Hashes:
    """Hash the texts of each row; texts that differ in case, accents, spaces and control characters alone are equal.

    A student by default reads these alike, as its words are BERT's. ``plain`` texts have been cleaned.
    """
    return text_hash([_bare(column, plain=plain) for column in texts.get_columns()])


def _bare(texts: pl.Series, *, plain: bool) -> pl.Series:
    other = (texts.str.len_bytes() != texts.str.len_chars()).arg_true()
    if len(other):  # few texts, mostly: the others are ASCII
        bare = texts.gather(other).str.normalize("NFD").str.replace_all(r"\p{Mn}", "")
        texts = texts.scatter(other, bare.to_frame().select(clean(pl.all())).to_series())
    text = pl.col(texts.name)
    text = (text if plain else clean(text)).str.to_lowercase().str.replace_all(" ", "", literal=True)
    return texts.to_frame().select(text).to_series()


@dataclass(frozen=True)
class NewTexts:
    """Which texts are new, and why the others are not."""

    keep: Mask  # [texts], of equal ones the first
    duplicates: int  # copies of an earlier text
    train_copies: int  # texts of the training set among the rest
    held_out_copies: int  # held-out texts among the rest


def excerpts(texts: pl.DataFrame) -> list[str]:
    """Return the beginning of each row's texts, for reports; a ``|`` stands between the texts of a pair."""
    return texts.select(pl.concat_str(pl.all().str.slice(0, SHOWN), separator=" | ")).to_series().to_list()


def warn_if_little(kept: int, made: int, reporter: Reporter) -> None:
    """Warn if almost none of the texts made is new."""
    if kept < 0.01 * made:
        what = f"only {kept:,} of {made:,} texts are new, the others are copies"
        reporter.warn(f"{what}: the student will have little more than the training texts to learn from")


def new_texts(made: Hashes, train: Hashes, held_out: Hashes) -> NewTexts:
    """Find the texts of ``made`` that are new; ``train`` is empty where copies of training texts may stay."""
    first = pl.Series(first_of_equals(made))
    new = first & ~pl.Series(made).is_in(pl.Series(train).implode())
    keep = new & ~pl.Series(made).is_in(pl.Series(held_out).implode())
    distinct, new_ones, kept = (int(mask.sum()) for mask in (first, new, keep))
    return NewTexts(keep.to_numpy().copy(), len(made) - distinct, distinct - new_ones, new_ones - kept)


def select(rows: pl.LazyFrame, keep: Mask) -> pl.LazyFrame:
    """Keep the rows that a mask over all rows names; they stream, and only the mask is in memory."""
    number = "__number__"
    wanted = pl.col(number).map_batches(
        lambda numbers: pl.Series(keep[numbers.to_numpy()]), return_dtype=pl.Boolean, is_elementwise=True
    )
    return rows.with_row_index(number).filter(wanted).drop(number)


def take(rows: pl.LazyFrame, numbers: NDArray[np.int64], count: int) -> pl.DataFrame:
    """Collect the rows of these different numbers, in the order of the numbers; ``count`` is that of all rows."""
    keep = np.zeros(count, np.bool_)
    keep[numbers] = True
    return select(rows, keep).collect()[numbers.argsort().argsort()]


def write_set(
    output: Path, train: pl.DataFrame, task: Task, source: str = "", texts: pl.LazyFrame | None = None
) -> None:
    """Write a transfer set: the originals, then the new texts, which have no label."""
    rows = train.lazy().select(*task.columns, pl.lit("original").alias("source"), "label")
    if texts is not None:
        label = pl.lit(None, pl.String).alias("label")
        rows = pl.concat([rows, texts.select(*task.columns, pl.lit(source).alias("source"), label)])
    write_table(output, rows)


@dataclass(frozen=True)
class MixResult:
    """The join of some transfer sets."""

    rows: int
    originals: int  # the training set's own, which come first
    kept: dict[str, int]  # new texts that were taken from each set, by its name
    dropped: dict[str, int]  # those left out, since a set before it (or the same one) says the same


def mix(*, sets: Mapping[str, Path], task: Task, output: Path, reporter: Reporter = QuietReporter()) -> MixResult:
    """Join transfer sets: the originals, then the new texts of each, without what came before.

    Texts are equal whatever their white space. New texts are not compared with the originals: a set that kept
    copies of them on purpose keeps them here. ``sets`` are Parquet tables by method, in order; one with other originals
    is a ``DataError``.
    """
    tables = {name: scan(path, (*task.columns, "source", "label")) for name, path in sets.items()}
    surveys = {name: _survey(table, task) for name, table in tables.items()}
    first = next(iter(sets))
    ours = surveys[first][1]
    for name, (_, theirs, _) in surveys.items():
        if len(theirs) != len(ours):
            what = f"{len(theirs)} originals where the set of {first} has {len(ours)}"
        elif len(differs := np.flatnonzero(theirs != ours)):
            what = f"original number {differs[0] + 1} is another text than in the set of {first}"
        else:
            continue
        raise DataError(what, file=sets[name], key="source", hint="make both from the same training set")
    keep = new_texts(np.concatenate([made for _, _, made in surveys.values()]), _NONE, _NONE).keep
    chosen, kept, dropped = [], {}, {}
    for name, (original, _, made) in surveys.items():
        new, keep = np.split(keep, [len(made)])
        wanted = original & (name == first)
        wanted[~original] = new
        chosen.append(select(tables[name], wanted))
        kept[name] = int(new.sum())
        dropped[name] = len(made) - kept[name]
    rows = len(ours) + sum(kept.values())
    with reporter.progress("mix", rows) as progress:
        write_table(output, pl.concat(chosen))
        progress.advance(rows)
    return MixResult(rows, len(ours), kept, dropped)


def _survey(table: pl.LazyFrame, task: Task) -> tuple[Mask, Hashes, Hashes]:
    """Return which rows of a set are originals, and the hashes of the originals and of the new texts."""
    masks, originals, made = [np.zeros(0, np.bool_)], [_NONE], [_NONE]
    original, texts = pl.col("source") == "original", pl.col(task.columns)
    for frame in slices(table, _ROWS):
        masks.append(frame.select(original).to_series().to_numpy())
        originals.append(text_hash(frame.filter(original).select(texts).get_columns()))
        made.append(keys(frame.filter(~original).select(texts)))
    return np.concatenate(masks), np.concatenate(originals), np.concatenate(made)
