"""``kd transfer corpus``: texts of the user's own, cleaned and without those that the task has.

The texts are cleaned in parts, which wait on the disk while their hashes are compared; memory holds some numbers for
each text, and never the texts.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.transfer import CorpusSettings
from kdcli.errors import DataError, ProfileError
from kdcli.files import check_output, full_disk, temporary_path
from kdcli.parts import Engine, Loaded, LocalEngine, Parts, in_turn, usable_cores
from kdcli.tables.parquet import in_frames_of, slices, stream
from kdcli.tables.read import ROW_NUMBER, TableReader, read_table
from kdcli.tables.text import BadRowsMode, form_of
from kdcli.tasks.detect import is_quoted
from kdcli.tasks.text_set import form_of_set, text_columns, with_tabs, without_marks
from kdcli.transfer import cleaning
from kdcli.transfer.heavy import Bits

EXAMPLES = 6
_ROWS = 16_384
ASKED = 4096  # texts whose nearness is computed together
ROWS = 262_144  # texts that are cleaned, or put in order, together

Nearness = Callable[[Sequence[str]], NDArray[np.float64]]
"""Gives each text a number, ``float64 [texts]``; the greater, the nearer. A pair is one text with a tab."""

_DROPS = {
    "unpaired": "without exactly one tab",
    "blank": "blank",
    "too_long": "too long",
    "duplicates": "duplicates",
    "train_copies": "copies of training texts",
    "held_out_copies": "copies of dev or test texts",
}


@dataclass(frozen=True)
class CorpusResult:
    """A transfer set of the user's texts."""

    rows: int  # of the table
    originals: int  # training texts, which come first and are all kept
    read: int  # texts in the files; the next six count those dropped
    unpaired: int  # lines of a pair with no tab, or several
    blank: int  # also pairs with a blank side
    too_long: int  # more than max_words words, also on one side of a pair
    duplicates: int
    train_copies: int
    held_out_copies: int
    usable: int  # the others
    kept: int  # usable texts in the table
    examples: list[str]  # the first of them; a ``|`` stands between the texts of a pair


def from_corpus(
    *,
    settings: CorpusSettings,
    train: pl.DataFrame,
    held_out: Sequence[pl.DataFrame],
    task: Task,
    seed: int,
    output: Path,
    bits: Loaded[Bits] | None = None,
    device: str = "cpu",
    bad_rows: BadRowsMode = "error",
    engine: "Engine | None" = None,
    reporter: Reporter = QuietReporter(),
) -> CorpusResult:
    """Make a transfer set: the originals, then texts of the user's files, cleaned.

    Texts are taken at random, in the order of the files, or the nearest to the task first; held-out texts never. The
    table depends on the texts, the settings and the seed alone. ``order_by = "lm"`` needs the generator's ``bits``,
    which the engine takes on ``device``.
    """
    check_output(output, [Path(name).expanduser() for name in settings.files], ours=True)
    readers = _open(settings, task, bad_rows, reporter)
    train, held_out = cleaning.plain(train, task), [cleaning.plain(table, task) for table in held_out]
    nearness: Loaded[Nearness] | None = None
    if settings.order_by == "tfidf":
        texts_of_task = joined(train.select(task.columns))
        nearness = Loaded(tfidf_nearness(texts_of_task), tfidf_nearness, (texts_of_task,))
    elif settings.order_by == "lm":
        if bits is None:
            what = "order_by is lm, and the generator gives no bits of a text"
            raise ProfileError(what, key="transfer.corpus.order_by", hint="take tfidf, or another generator")
        nearness = Loaded(lm_nearness(bits), lm_nearness, (bits,), bits.files)
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = f"{temporary_path(output).name}-"
    with (
        TemporaryDirectory(dir=output.parent, prefix=beside) as name,
        full_disk(output),
        engine or LocalEngine() as made,
    ):
        folder = Path(name)
        cleaning.write_set(folder / f"originals-{output.name}", train, task)  # can a table of this form hold them?
        texts, counts = _read(readers, settings, task, folder / "clean", made, reporter)
        found = texts.select("key").collect()["key"].to_numpy()
        new = cleaning.new_texts(found, cleaning.hashes([train], task), cleaning.hashes(held_out, task))
        for reason in ("duplicates", "train_copies", "held_out_copies"):
            counts[reason] = getattr(new, reason)
        usable = counts["usable"] = int(new.keep.sum())
        if not usable:
            reasons = ", ".join(f"{counts[name]} {reason}" for name, reason in _DROPS.items() if counts[name])
            what = f"nothing is left of the {counts['read']} texts: {reasons}"
            hint = "name files of other texts in transfer.corpus.files"
            raise DataError(what, file=", ".join(settings.files), key="transfer.corpus.files", hint=hint)
        cleaning.warn_if_little(usable, counts["read"], reporter)
        if settings.num_samples > usable:
            reporter.warn(f"there are {usable} texts to take, and num_samples is {settings.num_samples}: all are taken")
        kept = counts["kept"] = min(settings.num_samples or usable, usable)
        if nearness is None:
            chosen = cleaning.select(texts, at_random(new.keep, kept, seed))
        else:
            candidates = cleaning.select(texts, new.keep).select(task.columns)
            with Parts(folder / "near", {}, engine=made, reporter=reporter) as parts:
                how = {"read": in_turn(slices(candidates, ASKED)), "device": device, "files": nearness.files}
                sizes = [min(ASKED, usable - begin) for begin in range(0, usable, ASKED)]
                parts.make(sizes, NearPart(nearness), title="order", unit="texts", **how)
            near = pl.read_parquet([parts.path(part) for part in range(len(sizes))], glob=False)["near"].to_numpy()
            chosen = stream(lambda _: nearest(candidates, near, kept), dict.fromkeys(task.columns, pl.String))
        with reporter.progress("assemble", len(train) + kept) as progress:
            cleaning.write_set(output, train, task, "corpus", chosen)
            progress.advance(len(train) + kept)
        examples = cleaning.excerpts(chosen.head(EXAMPLES).select(task.columns).collect())
    return CorpusResult(rows=len(train) + kept, originals=len(train), examples=examples, **counts)


def at_random(keep: cleaning.Mask, count: int, seed: int) -> cleaning.Mask:
    """Choose ``count`` of the texts to keep, whatever others are kept: those with the smallest random numbers."""
    numbers = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed))).random(len(keep))
    there = np.flatnonzero(keep)
    chosen = np.zeros(len(keep), np.bool_)
    chosen[there[np.argsort(numbers[there], kind="stable")[:count]]] = True
    return chosen


def _open(settings: CorpusSettings, task: Task, bad_rows: BadRowsMode, reporter: Reporter) -> list[TableReader]:
    """Open the files, each with its text columns only."""
    if not settings.files:
        hint = """name some: --set transfer.corpus.files='["texts.txt"]'"""
        raise ProfileError("no files to take texts from", key="transfer.corpus.files", hint=hint)
    wanted = len(task.columns)
    if settings.columns and len(settings.columns) != wanted:
        what = f"a {task.kind} takes {wanted} text column{'s' * (wanted > 1)}, and {len(settings.columns)} are named"
        raise ProfileError(what, key="transfer.corpus.columns")
    readers = []
    for path in (Path(name).expanduser() for name in settings.files):
        form = form_of(path) if settings.columns else form_of_set(path, task)
        quoted = is_quoted(path, task.name) if form == "tsv" else None
        reader = read_table(path, bad_rows=bad_rows, form=form, quoted=quoted)
        columns = reader.columns[:1] if form == "txt" else _columns(reader, settings, task, reporter)
        reader = read_table(path, columns=columns, bad_rows=bad_rows, form=form, quoted=quoted)
        if quoted:
            reporter.info(f"{path.name}: quoted as in CSV")
        for column in columns:
            if reader.schema[column] != pl.String:
                raise DataError(f"this column holds {reader.schema[column]}, not texts", file=path, key=column)
        readers.append(reader)
    return readers


def _columns(reader: TableReader, settings: CorpusSettings, task: Task, reporter: Reporter) -> Sequence[str]:
    """Choose the text columns of a file: two for a pair, or one whose texts have a tab."""
    if settings.columns:
        return settings.columns
    if known := text_columns(reader.columns, task):
        return known
    if len(reader.columns) == 1:
        reporter.info(f"{reader.path.name}: texts are in the column {reader.columns[0]!r}")
        return reader.columns
    lacking = " and ".join(name for name in task.columns if name not in reader.columns)
    hint = f"name the text columns in transfer.corpus.columns; there are {', '.join(reader.columns)}"
    raise DataError(f"there is no column {lacking}", file=reader.path, key="transfer.corpus.columns", hint=hint)


def _read(
    readers: Sequence[TableReader],
    settings: CorpusSettings,
    task: Task,
    folder: Path,
    engine: Engine,
    reporter: Reporter,
) -> tuple[pl.LazyFrame, Counter[str]]:
    """Store the clean texts that are neither blank nor too long, with their hashes, and count the others."""
    counts = Counter(dict.fromkeys(("read", *_DROPS), 0))

    def frames() -> Iterator[pl.DataFrame]:
        for reader in readers:
            yield from in_frames_of(ROWS, (batch.drop(ROW_NUMBER) for batch in reader.batches()))

    sizes, read = [len(frame) for frame in frames()], in_turn(frames())
    make = CleanPart(task, settings.max_words)
    with Parts(folder, {}, engine=engine, reporter=reporter) as parts:
        parts.make(sizes, make, title="read", unit="texts", read=read, workers=usable_cores())
    paths = [parts.path(part) for part in range(len(sizes))]
    for path in paths:
        counts.update(json.loads(pl.read_parquet_metadata(path)["counts"]))
    for reader in readers:
        if bad := reader.bad.count:
            reporter.warn(f"{reader.path.name}: {bad} bad rows skipped, the first is {reader.bad.first}")
    schema = {**dict.fromkeys(task.columns, pl.String), "key": pl.UInt64}
    return pl.scan_parquet(paths, glob=False) if paths else pl.LazyFrame(schema=schema), counts


@dataclass(frozen=True)
class CleanPart:
    """Makes a part: clean texts with their hashes (``key``); the file's metadata counts the texts left out."""

    task: Task
    max_words: int

    def __call__(self, part: int, path: Path, frame: pl.DataFrame) -> None:
        """Write the clean texts of a frame to ``path``."""
        texts, unpaired = _clean(frame, self.task)
        there = texts.filter(pl.all_horizontal(pl.all() != ""))
        # One space stands between words.
        short = there.filter(pl.all_horizontal(pl.all().str.count_matches(" ", literal=True) < self.max_words))
        blank, too_long = len(frame) - unpaired - len(there), len(there) - len(short)
        counts = {"read": len(frame), "unpaired": unpaired, "blank": blank, "too_long": too_long}
        clean = short.with_columns(key=cleaning.keys(short, plain=True))
        clean.write_parquet(path, compression="lz4", row_group_size=_ROWS, metadata={"counts": json.dumps(counts)})


def _clean(batch: pl.DataFrame, task: Task) -> tuple[pl.DataFrame, int]:
    """Clean the texts of a batch, and cut a single column of pairs at the tabs; count the lines that are no pair."""
    texts = batch.fill_null("")
    if texts.width == len(task.columns):
        texts.columns = list(task.columns)
        return texts.select(cleaning.clean(without_marks(pl.all()))), 0
    lines = texts.select(with_tabs(pl.first())).to_series()
    unpaired = (lines.str.count_matches("\t", literal=True) != 1) & lines.str.contains(r"[^\s\x1c-\x1f]")
    return cleaning.split_pairs(lines, task.columns), int(unpaired.sum())


def tfidf_nearness(task_texts: Sequence[str]) -> Nearness:
    """Take the cosine, 0 to 1, of a text's TF-IDF vector and the centroid of the task's.

    English function words are left out: the centroid would be mostly theirs, and the nearest texts the long ones.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second

    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english")
    try:
        vectors = vectorizer.fit_transform(task_texts)
    except ValueError as error:
        hint = "order them otherwise: transfer.corpus.order_by=none or lm"
        what = "the training texts hold no words that texts could be ordered by"
        raise DataError(what, key="transfer.corpus.order_by", hint=hint) from error
    mean = np.asarray(vectors.mean(axis=0), np.float64).ravel()
    centroid = mean / np.linalg.norm(mean)
    return lambda texts: np.asarray(vectorizer.transform(texts) @ centroid, np.float64)


def lm_nearness(bits: Loaded[Bits]) -> Nearness:
    """Take the bits per character of a generator, fewer being nearer (so the number is negative); no text is blank."""
    return lambda texts: -np.asarray(bits.value(texts), np.float64) / np.array([*map(len, texts)], np.float64)


@dataclass(frozen=True)
class NearPart:
    """Makes a part: how near some texts are to the task (``near``)."""

    nearness: Loaded[Nearness]

    def __call__(self, part: int, path: Path, frame: pl.DataFrame) -> None:
        """Write the nearness of the texts of a frame to ``path``."""
        pl.DataFrame({"near": self.nearness.value(joined(frame))}).write_parquet(path)


def nearest(texts: pl.LazyFrame, near: NDArray[np.float64], count: int) -> Iterator[pl.DataFrame]:
    """Yield the ``count`` nearest texts on disk, the nearest first; of equally near ones, the earlier."""
    order = np.argsort(-near, kind="stable")[:count]
    for first in range(0, len(order), ROWS):
        yield cleaning.take(texts, order[first : first + ROWS], len(near))


def joined(texts: pl.DataFrame) -> list[str]:
    """Make one text of each row, with tabs between its columns."""
    return texts.select(pl.concat_str(pl.all(), separator="\t")).to_series().to_list()
