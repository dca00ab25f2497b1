"""The user's texts: found, read, and divided into those to learn from and those that are held out."""

import glob
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, MissingError, UsageError
from kdcli.tables.read import ROW_NUMBER, Form, form_of, read_table
from kdcli.tasks.detect import is_quoted
from kdcli.tasks.split import stream_table
from kdcli.transfer.cleaning import keys

STDIN = "-"
FEWEST = 10  # the fewest different texts to distil with
_FORMS = tuple(f".{form}{zipped}" for form in get_args(Form) for zipped in ("", ".gz"))
_TEXT_NAMES = (
    "text",
    "texts",
    "sentence",
    "content",
    "review",
    "body",
    "message",
    "mail",
    "email",
    "comment",
    "document",
    "question",
)
_LABEL_NAMES = ("label", "labels", "gold_label", "class", "category", "target", "sentiment", "intent", "topic")
_NUMBER = r"^\s*([-+]?[\d.,:/-]+\s*([eE%][-+]?\d*)?)?\s*$"  # dates and times too, and nothing at all
_LOOKED_AT = 1000  # rows by which a column is judged
_SHARE, _DEV, _TEST = 10, 2_000, 10_000
"""One text in so many is held out to choose among models, and one for the final figures, but no more than these."""
_TEST_FROM = 5_000  # the fewest texts of which some are kept for the final figures alone
_ROWS = 100_000


@dataclass(frozen=True)
class Columns:
    """The columns of a table that hold the texts, and the labels if there are any."""

    texts: tuple[str, ...]
    label: str | None
    values: tuple[str, ...] = field(default=(), compare=False)  # the different labels of the first rows, as text


@dataclass(frozen=True)
class TextCounts:
    """How many texts were read, left out, and taken."""

    read: int  # rows with a text
    duplicates: int  # copies of an earlier text, up to case, accents and spaces
    beyond: int  # further texts, which the plan has no time for
    train: int  # texts to learn from
    dev: int  # texts that choose among models
    test: int  # texts for the final figures alone
    labelled: bool  # whether they have gold labels


def find_files(names: Sequence[str], *, offline: bool = False) -> list[Path]:
    """Return the tables and text files behind names: files, folders of them, patterns, or datasets of the Hub."""
    found: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir() and not any(path.glob("part-*")):  # a folder of part files is one table
            files = sorted(file for file in path.iterdir() if file.name.endswith(_FORMS) and file.is_file())
        elif path.exists():
            files = [path]
        elif set(name) & set("*?["):
            files = sorted(Path(file) for file in glob.glob(str(path)))
        elif name.count("/") == 1 and not name.endswith(_FORMS) and name[0] not in "./~":
            files = _dataset(name, offline)
        else:
            raise MissingError("there is no such file or folder", file=path, hint="name a table, or texts one a line")
        if not files:
            hint = f"it looks for {', '.join(_FORMS[::2])}; quote a pattern, so that the shell leaves it alone"
            raise DataError("there is no table and no text file", file=name, hint=hint)
        found += files
    return list(dict.fromkeys(found))


def _dataset(name: str, offline: bool) -> list[Path]:
    """Download the tables of a dataset of the Hub, those of its training split alone where they are named so."""
    from kdcli.download.fetch import fetch_dataset

    patterns = ["*.parquet", "*.jsonl", "*.csv"]
    folder = fetch_dataset(name, patterns, offline=offline, hint=f"{name} is no file here: check the name")
    files = sorted(file for pattern in patterns for file in folder.rglob(pattern))
    return [file for file in files if "train" in file.name] or files


def find_columns(
    path: Path,
    text_col: str | None = None,
    text2_col: str | None = None,
    label_col: str | None = None,
    labels: Collection[str] = (),
) -> Columns:
    """Find the columns of a table that hold the texts and the labels: as they are named, else by content and name.

    The texts are in the only column of texts, else in one with a usual name. ``label_col`` names the labels'; by
    default it is one that holds ``labels`` alone, else one with a usual name, and ``none`` stands for none. Where no
    column holds texts, or several do, a ``DataError`` shows an example of each.
    """
    form = form_of(path)
    reader = read_table(path, form=form, quoted=is_quoted(path, "custom") if form == "tsv" else None)
    first = next(iter(reader.batches()), None)
    if first is None:
        raise DataError("there are no texts in this file", file=path)
    rows = first.drop(ROW_NUMBER).head(_LOOKED_AT)
    known = set(map(str.casefold, labels))
    holding = [name for name in rows.columns if (of := _values(rows, name)) and set(map(str.casefold, of)) <= known]
    label = None if label_col == "none" else label_col or next(iter(holding), _named(rows.columns, _LABEL_NAMES))
    if form == "txt":
        if not _written(rows):
            raise DataError("these lines are numbers, not texts", file=path)
        return Columns(("sentence",), label, _values(first, label))
    if text_col is None:
        text_col = _text_column(rows.drop([label] if label in rows.columns else []), path)
    for name in filter(None, (text_col, text2_col, label_col if label else None)):
        if name not in rows.columns:
            raise DataError(f"there is no column {name!r}", file=path, key=name, hint=_shown(rows))
    if text_col not in _written(rows):
        raise DataError("this column holds no texts", file=path, key=text_col, hint=_shown(rows))
    texts = (text_col, text2_col) if text2_col else (text_col,)
    label = None if label in texts else label
    return Columns(texts, label, _values(first, label))


def _values(rows: pl.DataFrame, column: str | None) -> tuple[str, ...]:
    if column not in rows.columns:
        return ()
    labels = rows[column].explode() if rows[column].dtype == pl.List else rows[column]
    values = labels.drop_nulls().unique(maintain_order=True).cast(pl.String, strict=False).drop_nulls()
    return tuple(values.filter(values != ""))


def _text_column(rows: pl.DataFrame, path: Path) -> str:
    """Return the only column of texts, or that with a usual name among several, or among those of single words."""
    written = _written(rows)
    spaces = {name: rows[name].str.strip_chars().str.contains(r"\s").sum() for name in written}
    for names in ([name for name in written if 2 * spaces[name] > len(rows)], written):
        if len(names) == 1:
            return names[0]
        if usual := _named(names, _TEXT_NAMES):
            return usual
        if names:
            what = f"{len(names)} columns may hold the texts: {', '.join(names)}"
            raise DataError(what, file=path, hint=f"--text-col COLUMN names it; {_shown(rows)}")
    raise DataError("no column holds texts", file=path, hint=f"--text-col COLUMN names it; {_shown(rows)}")


def _written(rows: pl.DataFrame) -> list[str]:
    strings = [column for column in rows if column.dtype == pl.String]
    return [column.name for column in strings if not column.str.contains(_NUMBER).fill_null(True).all()]


def _named(columns: Sequence[str], usual: Sequence[str]) -> str | None:
    by_name = {column.strip().casefold(): column for column in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def _shown(rows: pl.DataFrame) -> str:
    examples = {column.name: next((str(value) for value in column.drop_nulls() if str(value)), "") for column in rows}
    shown = (f"{name} ({value[:40]}{'...' * (len(value) > 40)})" for name, value in examples.items())
    return f"the columns are {', '.join(shown)}".replace("\n", " ")


@dataclass(frozen=True)
class TakenTexts:
    """Different texts in random order, with their labels if they have any; and how many there were."""

    rows: pl.DataFrame  # the text columns, and ``label``
    read: int  # rows with a text
    different: int  # different texts among them
    labelled: bool  # whether every row has a label
    unlabelled: int = 0  # texts that are left out, for they have no label

    def divide(self, count: int, task: Task, folder: Path, *, choose: bool = False) -> TextCounts:
        """Write the first ``count`` texts: ``train``, ``dev`` and, of many, ``test.parquet``.

        With labels each side has about the same share of every one. With ``choose``, where there are more texts,
        ``pool.parquet`` takes the place of ``train.parquet``: its texts, then all others.
        """
        rows = self.rows.head(count)
        if self.labelled and not task.is_score:
            place = (pl.int_range(pl.len()).over("label") + 0.5) / pl.len().over("label")
            rows = rows.with_columns(place=place).sort("place", maintain_order=True).drop("place")
        dev, test = held_out(len(rows))
        sides = {"dev": rows[:dev], "test": rows[dev : dev + test], "train": rows[dev + test :]}
        sizes = {name: len(side) for name, side in sides.items()}
        if choose and count < len(self.rows):
            sides["pool"] = pl.concat([sides.pop("train"), self.rows[count:]])
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train", "dev", "test", "pool"):
            path = folder / f"{name}.parquet"
            sides[name].write_parquet(path) if len(sides.get(name, ())) else path.unlink(missing_ok=True)
        beyond = self.different - self.unlabelled - min(count, len(self.rows))
        return TextCounts(self.read, self.read - self.different, beyond, labelled=self.labelled, **sizes)


def take_texts(
    files: Sequence[Path],
    settings: TaskSettings,
    task: Task,
    *,
    labelled: bool,
    limit: int = 0,
    seed: int,
    reporter: Reporter,
) -> TakenTexts:
    """Read texts, and take each once; of copies the first, so that none can stand on two sides.

    With ``labelled`` the labels are read too. ``limit`` (0: none) texts are taken at random: those with the smallest
    hashes, whatever the order of the files. Memory holds these and a number for each other text. Fewer than ``FEWEST``
    different texts are a ``DataError``.
    """
    unlabelled = 0
    frames: list[pl.DataFrame] = []
    found: list[NDArray[np.uint64]] = []
    mixed = np.random.default_rng(seed).integers(1 << 64, dtype=np.uint64)  # another order for each seed
    with reporter.progress("read", unit="texts") as progress:
        for path in files:
            for batch in stream_table(path, settings, task, reporter, training=True, labels=labelled):
                rows = batch.drop("index")
                rows = rows.with_columns(key=keys(rows.select(task.columns)))
                found.append(rows["key"].to_numpy())
                frames.append(rows.with_columns(rank=found[-1] ^ mixed))
                if limit and sum(map(len, frames)) > limit + _ROWS:
                    frames = [_smallest(frames, limit)]
                progress.advance(len(rows))
    rows, read = _smallest(frames, limit).drop("key", "rank"), sum(map(len, found))
    different = len(np.unique(np.concatenate(found)))
    if different < FEWEST:
        what = f"{read:,} texts, of which {different:,} are different: {FEWEST} at least are needed"
        raise DataError(what, file=", ".join(map(str, files)), hint="hundreds make a student, thousands a good one")
    if labelled and (without := rows["label"].null_count()):
        labelled = without < len(rows) / 2
        reporter.warn(
            f"{without:,} of {len(rows):,} texts have no label: "
            + ("they are left out" if labelled else f"the column {settings.label_column} is not used")
        )
        unlabelled = without if labelled else 0
        rows = rows.drop_nulls("label") if labelled else rows
    return TakenTexts(rows if labelled else rows.select(task.columns), read, different, labelled, unlabelled)


def first_texts(path: Path, settings: TaskSettings, task: Task, count: int) -> pl.DataFrame:
    """Read the first texts of a file; none is a ``DataError``."""
    rows = next(stream_table(path, settings, task, QuietReporter(), training=True), pl.DataFrame())
    if rows.is_empty():
        raise DataError("there are no texts in this file", file=path)
    return rows.select(task.columns).head(count)


def _smallest(frames: Sequence[pl.DataFrame], limit: int) -> pl.DataFrame:
    """Return the texts with the smallest hashes in order, each once; without a limit all of them."""
    rows = pl.concat(frames).unique("key", keep="first", maintain_order=True).sort("rank")
    return rows.head(limit or len(rows))


def held_out(texts: int) -> tuple[int, int]:
    """Return how many of so many texts are held out: to choose among models, and for the final figures."""
    test = min(texts // _SHARE, _TEST) if texts >= _TEST_FROM else 0
    return min(max(1, texts // _SHARE), _DEV), test


def fewest_texts(test: int) -> int:
    """Return the fewest texts of which so many are kept for the final figures."""
    return max(_TEST_FROM, _SHARE * test)


def on_disk(texts: Any, folder: Path) -> tuple[Path, dict[str, str]]:
    """Write texts in memory to a table; return its path and columns."""
    if isinstance(texts, str | Path):
        return Path(texts), {}
    rows = list(texts)
    pairs = bool(rows) and not isinstance(rows[0], str)
    names = ("sentence1", "sentence2") if pairs else ("sentence",)
    for number, row in enumerate(rows, 1):
        parts = row if pairs else (row,)
        if len(parts) != len(names) or not all(isinstance(part, str) for part in parts):
            raise DataError(f"this is not {'a pair of texts' if pairs else 'a text'}: {row!r:.80}", row=number)
    path = folder / "texts.parquet"
    table = {name: [row[side] if pairs else row for row in rows] for side, name in enumerate(names)}
    pl.DataFrame(table, schema=dict.fromkeys(names, pl.String)).write_parquet(path)
    return path, {"text_col": "sentence1", "text2_col": "sentence2"} if pairs else {"text_col": "sentence"}


def read_stdin(text: bytes, folder: Path) -> Path:
    """Keep what was piped in, one text a line, and return the file."""
    if not text.strip():
        raise UsageError("nothing came through the pipe", hint="kd distil MODEL - < texts.txt")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stdin.txt"
    path.write_bytes(text)
    return path
