"""The task of a profile, and its tables in whatever layout they come: texts and labels, checked row by row."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, UsageError
from kdcli.tables.read import ROW_NUMBER, Form, TableReader, as_texts
from kdcli.tasks.detect import TableLayout, detect
from kdcli.tasks.glue import PARTS
from kdcli.tasks.labels import LabelColumn, encode_labels, label_texts, split_sets

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

SAMPLE = "kd:sample"  # the data folder that comes with the package

_STEMS: dict[Split, str] = {"train": "train", "dev": "dev|validation", "test": "test|diagnostic"}
SPACE = r"[\s\x1c-\x1f]"  # white space, as Python's ``split`` has it
_OF_TASK = [field.name for field in fields(Task) if field.name != "thresholds"]
_WITHOUT_PROFILE = ("text_columns", "label_column", "layout", "bad_rows", "quoting", "separator")
"""The settings that a command takes without a profile."""


def task_from(settings: TaskSettings) -> Task:
    """Make the task that a profile's table ``[task]`` describes."""
    return Task(**{name: getattr(settings, name) for name in _OF_TASK})


def settings_of(task: Task) -> TaskSettings:
    """Return settings that read tables of a task in any known layout; the inverse of ``task_from``."""
    return TaskSettings(**{name: getattr(task, name) for name in _OF_TASK})


def table_settings(task: Task, asked: TaskSettings, place: str | Path, *, profiled: bool) -> TaskSettings:
    """Return how to read a table for a model: as the profile says, else as the model's own task does.

    ``profiled``: a profile describes the task, and ``asked`` holds its settings. ``place`` is the model's, for
    messages: a model of another task is a ``DataError``, and another number of text columns a ``UsageError``.
    """
    if profiled:
        check_task(task, task_from(asked), place)
        return asked
    if len(asked.text_columns) not in (0, len(task.columns)):
        needs = "--text-col alone" if task.kind == "single" else "--text-col and --text2-col"
        raise UsageError(f"the model's task {task.name} has {_texts(task)}", hint=f"it takes {needs}")
    return settings_of(task).model_copy(update={name: getattr(asked, name) for name in _WITHOUT_PROFILE})


def check_task(found: Task, wanted: Task, place: str | Path) -> None:
    """Check that a model reads as many texts as a task, and has its labels."""
    if any(getattr(found, name) != getattr(wanted, name) for name in ("kind", "labels", "multi_label")):
        what = f"the model is one of task {found.name} ({_shown(found)}), not of {wanted.name} ({_shown(wanted)})"
        raise DataError(what, file=place, hint="name a model of this task, or the profile of that one")


def load_split(settings: TaskSettings, task: Task, split: Split, reporter: Reporter) -> pl.DataFrame:
    """Read the train, dev or test rows of a task; MNLI's matched and mismatched ones together.

    The columns are texts: ``index`` (of a test table as it has it, else counted from 0), ``task.columns`` and ``label``
    (as the task writes it, null where there is none). What cannot be read, a label that is none of the task's, and
    training rows that all have the same are a ``DataError``.
    """
    return pl.concat(load_tables(settings, task, split, reporter).values())


def load_tables(settings: TaskSettings, task: Task, split: Split, reporter: Reporter) -> dict[str, pl.DataFrame]:
    """Read the tables of a split one by one, as ``load_split`` does: ``dev``, or both of MNLI's."""
    files = needed_files(settings, split)
    tables = {}
    for path in files:
        layout = detect(path, settings, task)
        labelled = settings.gold and split != "test"
        if not settings.gold:
            layout = replace(layout, label=None)
        elif labelled and layout.label is None:
            raise missing_label_column(path, settings)
        rows = _read(path, layout, settings, task, reporter, labelled=labelled, training=split == "train")
        table = pl.concat(rows)
        if settings.gold and split == "train":
            _check_classes(table["label"], task, path, reporter)
        tables[table_name(path, split)] = table
    unread = [path.name for path in _candidates(settings, split) if path not in files]
    if unread:
        reporter.info(f"{', '.join(path.name for path in files)} read, and not {', '.join(unread)}")
    return tables


def load_table(
    path: Path, settings: TaskSettings, task: Task, reporter: Reporter, *, labels: bool = True
) -> pl.DataFrame:
    """Read one table of a task, as ``load_split`` does; labels are not needed, and no row is dropped."""
    return pl.concat(stream_table(path, settings, task, reporter, labels=labels))


def check_labelled(settings: TaskSettings, task: Task, split: Split) -> None:
    """Check by the first rows that a split is there and has the task's labels; else a ``DataError``."""
    for path in needed_files(settings, split):
        layout = detect(path, settings, task)
        if layout.label is None and settings.gold:
            raise missing_label_column(path, settings)
        next(_read(path, layout, settings, task, QuietReporter(), labelled=False, training=False), None)


def stream_table(
    path: Path, settings: TaskSettings, task: Task, reporter: Reporter, *, training: bool = False, labels: bool = False
) -> Iterator[pl.DataFrame]:
    """Read the ``index`` and ``task.columns`` of one table batch by batch, in bounded memory.

    With ``labels`` those come too. For ``training``, rows with an empty text are left out.
    """
    layout = detect(path, settings, task)
    layout = layout if labels else replace(layout, label=None)
    for batch in _read(path, layout, settings, task, reporter, labelled=False, training=training):
        yield batch if labels else batch.drop("label")


def needed_files(settings: TaskSettings, split: Split) -> tuple[Path, ...]:
    """Return the files that ``load_split`` reads; a missing split is a ``DataError``."""
    if files := split_files(settings, split):
        return files
    raise missing_split(settings, split)


def split_files(settings: TaskSettings, split: Split) -> tuple[Path, ...]:
    """Return the files that ``load_split`` reads; none where there is no such split.

    A split is one table (``dev.tsv``; on the Hub ``validation.parquet``, or ``validation-*-of-00002.parquet``, which
    stands for its shards; of Spark the folder ``dev.parquet``), or a matched and a mismatched one. Of several files of
    one name the first form counts.
    """
    tables: dict[str, Path] = {}
    for path in _candidates(settings, split):
        tables.setdefault(table_name(path, split), path)
    return (tables[split],) if split in tables else tuple(tables.values())


def table_name(path: Path, split: Split) -> str:
    """Return the name of a split's file in results: ``dev``, ``dev_matched`` or ``dev_mismatched``."""
    return next((split + part for part in reversed(PARTS) if part in path.name), split)


def missing_split(settings: TaskSettings, split: Split) -> DataError:
    """Return the error of a split that is not there."""
    folder = _folder(settings)
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
    hint = f"it is {split}.tsv, .csv, .jsonl or .parquet, or one of these with .gz; the folder holds {there}"
    return DataError(f"there is no {split} table", file=folder, hint=hint)


def missing_label_column(path: Path, settings: TaskSettings) -> DataError:
    """Return the error of a table that needs labels and has none."""
    column = settings.label_column
    what = f"there is no column {column!r}" if column else "there is no label column"
    return DataError(what, file=path, hint="name it with --label-col, or task.label_column", key=column or None)


def _folder(settings: TaskSettings) -> Path:
    if not settings.data_dir:
        raise DataError("no data folder is named", key="task.data_dir", hint="name it with --data-dir FOLDER")
    if settings.data_dir == SAMPLE:
        return Path(__file__).parent / "sample"
    folder = Path(settings.data_dir).expanduser()
    if not folder.is_dir():
        what = "this is a file, not a data folder" if folder.exists() else "there is no such data folder"
        raise DataError(what, file=folder, key="task.data_dir", hint="name another one with --data-dir FOLDER")
    return folder


def _candidates(settings: TaskSettings, split: Split) -> list[Path]:
    """Return the files that may be a table of the split, ordered by part, then by form."""
    parts, forms = "|".join(PARTS), "|".join(get_args(Form))
    name = re.compile(rf"({_STEMS[split]})(?P<part>{parts})(-0+-of-\d+)?\.(?P<form>{forms})(?P<gzip>(\.gz)?)")
    found = []
    for path in _folder(settings).iterdir():
        match = name.fullmatch(path.name)
        # Spark writes a table as a folder of part files.
        if match and (path.is_file() or any(path.glob("part-*"))):
            order = PARTS.index(match["part"]), get_args(Form).index(match["form"]), match["gzip"], path.name
            found.append((order, path.with_name(re.sub(r"-0+-of-(?!0*1\.)", "-*-of-", path.name))))
    return [path for _, path in sorted(found)]


def _read(
    path: Path,
    layout: TableLayout,
    settings: TaskSettings,
    task: Task,
    reporter: Reporter,
    *,
    labelled: bool,
    training: bool = False,
) -> Iterator[pl.DataFrame]:
    """Read the rows of a table under kd's column names, check each label, and report what is odd.

    Without words there is nothing to learn from: rows with an empty text are left out of ``training``.
    """
    reporter.info(f"{path.name}: {layout}")
    layout = replace(layout, index=None) if labelled else layout  # only predictions need one
    reader = layout.open(path, layout.columns, settings.bad_rows)
    labels = LabelColumn(path, layout.label, task, reporter, labelled=labelled, drop=settings.drop_labels)
    rows, quoted = 0, 0
    empty: list[int] = []
    unlabelled: list[int] = []
    for batch in reader.batches():
        batch, label = labels.read(as_texts(batch, layout.texts, path))
        label = labels.checked(label, batch[ROW_NUMBER])
        blank = batch.select(pl.any_horizontal(pl.col(*layout.texts).str.contains(f"^{SPACE}*$"))).to_series()
        empty.extend(batch[ROW_NUMBER].filter(blank))
        if training and blank.any():
            batch, label = batch.filter(~blank), label.filter(~blank)
        if labelled and label.null_count():
            unlabelled.extend(batch[ROW_NUMBER].filter(label.is_null()))
            batch, label = batch.filter(label.is_not_null()), label.drop_nulls()
        texts = [batch[text].alias(name) for text, name in zip(layout.texts, task.columns, strict=True)]
        if layout.form == "tsv" and not layout.quoted:
            quoted += sum(int((text.str.starts_with('"') & text.str.ends_with('"')).sum()) for text in texts)
        index = pl.int_range(rows, rows + len(batch), eager=True).cast(pl.String)
        if layout.index is not None:
            index = index_texts(batch[layout.index], path)
        yield pl.DataFrame([index.alias("index"), *texts, label])
        rows += len(batch)
    if unlabelled and not rows:
        raise DataError("no row has a label", file=path, key=layout.label, hint="name the column with --label-col")
    kept = "left out" if training else "kept"
    odd = {f"rows with an empty text are {kept}": empty, "rows without a label are left out": unlabelled}
    _report(reader, labels, quoted, odd, reporter)
    if not rows:
        raise DataError("the table has no rows", file=path)


def _report(
    reader: TableReader, labels: LabelColumn, quoted: int, odd: Mapping[str, list[int]], reporter: Reporter
) -> None:
    """Say what is odd about a table; ``odd`` are numbers of rows."""
    counts = {
        f"rows dropped whose label is {' or '.join(labels.drop)}": labels.dropped.total(),
        "texts look quoted, and are read as they are (task.quoting)": quoted,
        "labels have spaces around them, which do not count": labels.spaces,
    }
    name = reader.path.name
    for note in [*reader.notes, *(f"{count:,} {what}" for what, count in counts.items() if count)]:
        reporter.info(f"{name}: {note}")
    if reader.bad.count:
        reporter.warn(f"{name}: {reader.bad.count} bad rows skipped, the first is {reader.bad.first}")
    for what, rows in odd.items():
        if rows:
            reporter.warn(f"{name}: {len(rows):,} {what}, the first is row {rows[0]}")


def index_texts(values: pl.Series, path: Path) -> pl.Series:
    """Return an index as text, a UUID in its usual spelling; a type without text is a ``DataError``."""
    if values.dtype == pl.Binary and (values.bin.size() == 16).all():
        return values.bin.encode("hex").str.replace("^(.{8})(.{4})(.{4})(.{4})", "${1}-${2}-${3}-${4}-")
    if values.dtype.is_float():
        return label_texts(values, path)
    if not (values.dtype == pl.Binary or values.dtype.is_nested()):
        with suppress(pl.exceptions.PolarsError):
            return values.cast(pl.String)
    hint = "remove or rename the column; predictions then number the rows from 0"
    raise DataError(f"the column holds {values.dtype}, not an index", file=path, key=values.name, hint=hint)


def _check_classes(labels: pl.Series, task: Task, path: Path, reporter: Reporter) -> None:
    """Refuse training labels that are all the same, and warn of classes without rows."""
    found: set[Any] = set(encode_labels(labels, task, file=path) if task.is_score else labels)
    several = len(found) > 1
    if task.multi_label:
        found = set(split_sets(labels).explode())
    if not several:
        what = f"every row has the {'score' if task.is_score else 'label'} {labels[0]!r}: there is nothing to learn"
        raise DataError(what, file=path, hint="two classes at least are needed" if not task.is_score else None)
    missing = [label for label in task.labels if label not in found]
    if missing:
        reporter.warn(f"{path.name}: no row has the label {' or '.join(missing)}")


def _shown(task: Task) -> str:
    labels = f"{'any of the ' * task.multi_label}labels {', '.join(task.labels)}"
    return f"{_texts(task)}, {labels if task.labels else 'a score'}"


def _texts(task: Task) -> str:
    return "single texts" if task.kind == "single" else "pairs of texts"
