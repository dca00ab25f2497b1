"""Predictions of a student or a teacher: for a table, to a file, and as GLUE's submission files."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import DataError, UsageError
from kdcli.evaluate.pair import DeferringStudent, Model, PairSpeed
from kdcli.files import sha256, write_json
from kdcli.parts import Engine, Loaded, LocalEngine, Parts, in_turn
from kdcli.tables import STDIN, read_lines
from kdcli.tables.parquet import in_frames_of, stream
from kdcli.tables.read import ROW_NUMBER, files_of, form_of
from kdcli.tables.write import write_table
from kdcli.tasks import answers as answering
from kdcli.tasks.glue import TASKS

if TYPE_CHECKING:
    from kdcli.config.schema import TaskSettings

ROWS = 4096
"""Rows of a part: enough that batches of one length are padded little, few enough to lose little. A model that gains
by more, because it computes shared beginnings of texts once, says so in its ``part_rows``."""
UNFINISHED = ".kd-glue.json"
"""The names of GLUE's files that a command has begun to write into this folder, until all are there."""
_READING = {"layout", "text_columns", "bad_rows", "quoting", "separator"}  # settings that say how a table is read


@dataclass(frozen=True)
class PredictResult:
    """A file of predictions, and its number of rows."""

    output: Path
    rows: int
    deferral: PairSpeed | None = None  # of a student with its teacher


def predict_table(
    model: Model, table: Path, settings: "TaskSettings | None", reporter: Reporter, *, probabilities: bool = False
) -> Iterator[pl.DataFrame]:
    """Predict a label, or a score, for each row of a table; memory does not grow with the rows.

    The table has the task's text columns, or is plain lines of text; ``settings`` say how to read it, by default as
    the model's task does. A frame has the columns of ``prediction_schema``; ``index`` is the table's, or counts from 0.
    """
    for part in _parts(model, table, settings, reporter, ROWS):
        yield _predict_part(model, part, probabilities)


def predict_lines(
    model: Model, stream: BufferedIOBase, reporter: Reporter, *, probabilities: bool = False
) -> Iterator[pl.DataFrame]:
    """Predict a label, or a score, for each line as soon as it is there; memory does not grow with their number.

    A line holds a text, or two with a tab between them, and ends at LF or CRLF; one that does not, one that is not
    UTF-8, or none at all is a ``DataError``. The index counts the lines from 0.
    """
    done = 0
    for columns in read_lines(stream, model.task, reporter):
        rows = len(columns[0])
        index = pl.int_range(done, done + rows, eager=True).cast(pl.String)
        yield predict_texts(model, index, columns, probabilities=probabilities)
        done += rows
    if not done:
        hint = "pipe lines of text into it, or name a table with --input FILE"
        raise DataError("there is no line to predict", file=STDIN, hint=hint)


def predict_file(
    model: Model | Loaded[Model],
    table: Path,
    output: Path,
    settings: "TaskSettings | None" = None,
    *,
    origin: Mapping[str, Any],
    probabilities: bool = False,
    keep: bool = False,
    resume: bool = True,
    engine: "Engine | None" = None,
    reporter: Reporter = QuietReporter(),
) -> PredictResult:
    """Write the predictions for a table to a file; ``keep`` puts them behind all columns of the table.

    First the whole table is read once, so that a row that cannot be read shows before the work. The work is cut into
    parts, with which a killed run goes on; the bytes of the file do not depend on it. ``origin`` is what the model is,
    as JSON values: parts of another one are not used, and none are without ``resume``.
    """
    from kdcli.tasks.split import settings_of

    engine = engine or LocalEngine()
    loaded = model if isinstance(model, Loaded) else Loaded(model, type(model), ())
    model = loaded.value
    task, settings = model.task, settings or settings_of(model.task)
    columns = file_columns(output, model, probabilities=probabilities)
    size: int = getattr(model, "part_rows", ROWS)
    rows = sum(map(len, _parts(model, table, settings, reporter, size)))
    sizes = [min(size, rows - begin) for begin in range(0, rows, size)]
    read = in_turn(_parts(model, table, settings, QuietReporter(), size))

    def assemble(paths: list[Path]) -> None:
        found = pl.concat([pl.scan_parquet(path, glob=False) for path in paths]).select(columns)
        write_table(output, _beside(table, settings, task, found) if keep else found)
        _count(model, paths)

    fingerprint = {
        "form": "kd.predictions/2",
        **origin,
        "input": "".join(sha256(file)[:16] for file in files_of(table)),
        "reading": settings.model_dump(mode="json", include=_READING),
        "columns": [*prediction_schema(model, probabilities=probabilities), *task.labels],
        "part_rows": size,
    }
    if "device" in origin:
        fingerprint["device"] = engine.device(origin["device"])
    how: dict[str, Any] = {"read": read, "device": fingerprint.get("device", "cpu"), "files": loaded.files}
    folder = output.with_name(f".{output.name}.parts")
    with engine, Parts(folder, fingerprint, resume=resume, engine=engine, reporter=reporter) as parts:
        parts.make(sizes, PredictPart(loaded, probabilities), title="predict", **how)
        parts.assemble(len(sizes), assemble)
    return PredictResult(output, rows, model.speed() if isinstance(model, DeferringStudent) else None)


def _beside(table: Path, settings: "TaskSettings", task: Task, predictions: pl.LazyFrame) -> pl.LazyFrame:
    """Return a table with its predictions behind its own columns; one of their names is a ``DataError``."""
    from kdcli.tasks.detect import detect

    reader = detect(table, settings, task).open(table, (), settings.bad_rows)
    new = {name: dtype for name, dtype in predictions.collect_schema().items() if name != "index"}
    if both := new.keys() & reader.schema.keys():
        hint = "rename it in the table, or leave out --keep"
        raise DataError("predictions have a column of this name, too", file=table, key=min(both), hint=hint)

    def frames() -> Iterator[pl.DataFrame]:
        begin = 0
        for batch in reader.batches():
            yield batch.drop(ROW_NUMBER).hstack(predictions.select(*new).slice(begin, len(batch)).collect())
            begin += len(batch)

    return stream(frames(), {**reader.schema, **new})


def write_predictions(
    output: Path, frames: Iterator[pl.DataFrame], model: Model, *, probabilities: bool = False
) -> PredictResult:
    """Write predictions to a file as they come; the file is there when they end."""
    columns = file_columns(output, model, probabilities=probabilities)
    lazy = stream(frames, prediction_schema(model, probabilities=probabilities))
    return PredictResult(output, write_table(output, lazy.select(columns)))


def file_columns(output: Path, model: Model, *, probabilities: bool = False) -> list[str]:
    """Return the columns of a file of predictions; probabilities without a place are a ``UsageError``."""
    columns = list(prediction_schema(model, probabilities=probabilities))
    if form_of(output) != "txt":
        return columns
    if probabilities or (isinstance(model, DeferringStudent) and model.teacher is None):
        raise UsageError("a .txt holds the predictions alone", file=output, hint="name it .tsv for the other columns")
    return ["prediction"]


def prediction_schema(model: Model, *, probabilities: bool = False) -> pl.Schema:
    """Return the columns of predictions, with those of the probabilities, and ``deferred`` where a student defers."""
    task = model.task
    if probabilities and task.is_score:
        raise UsageError(f"{task.name} predicts scores, which have no probabilities", hint="leave out --probabilities")
    labels = task.labels if probabilities else ()
    return pl.Schema(
        {"index": pl.String, "prediction": pl.Float32 if task.is_score else pl.String}
        | {f"probability_{label}": pl.Float32 for label in labels}
        | ({"deferred": pl.Boolean} if isinstance(model, DeferringStudent) else {})
    )


def predict_texts(
    model: Model, index: pl.Series, columns: Sequence[Sequence[str]], *, probabilities: bool = False
) -> pl.DataFrame:
    """Predict a label, a set of labels ``a|b``, or a score, for each text: the columns of ``prediction_schema``.

    The label has the highest logit, those of a set are above their thresholds, a score is cut to the task's range. A
    row without any word or answer has an empty prediction, unless the model says that a label must stand.
    """
    task = model.task
    logits, *deferred = model.answer(columns) if isinstance(model, DeferringStudent) else (model.logits(columns),)
    values = answering.shown(logits, task, shares=probabilities).values()
    schema = prediction_schema(model, probabilities=probabilities)
    frame = pl.DataFrame(dict(zip(schema, [index, *values, *deferred], strict=True)), schema)
    rows = zip(np.isfinite(logits[:, 0]).tolist(), *columns, strict=True)
    there = pl.Series([known and any(text.strip() for text in row) for known, *row in rows], dtype=pl.Boolean)
    there |= getattr(model, "answers_all", False)
    return frame.with_columns(pl.when(there).then(pl.all().exclude("index", "deferred")))


def _parts(
    model: Model, table: Path, settings: "TaskSettings | None", reporter: Reporter, size: int
) -> Iterator[pl.DataFrame]:
    """Read a table in frames of ``size`` rows, the last one of what is left."""
    from kdcli.tasks.split import settings_of, stream_table

    return in_frames_of(size, stream_table(table, settings or settings_of(model.task), model.task, reporter))


@dataclass(frozen=True)
class PredictPart:
    """Makes a part of a file of predictions; its metadata has what the model has counted."""

    model: Loaded[Model]
    probabilities: bool

    def __call__(self, part: int, path: Path, frame: pl.DataFrame) -> None:
        """Write the predictions of a frame to ``path``."""
        for counter in _counters(self.model.value):
            counter.clear()
        found = _predict_part(self.model.value, frame, self.probabilities)
        found.write_parquet(path, metadata={"counts": json.dumps(_counters(self.model.value))})


def _counters(model: Model) -> list[Counter[str]]:
    """Return the counters of a model, and of the teacher that a student defers to."""
    both = (model, getattr(model, "teacher", None))
    return [found for one in both for name in ("counts", "read") if (found := getattr(one, name, None)) is not None]


def _count(model: Model, paths: Sequence[Path]) -> None:
    """Set the counters of a model to the sums over all parts, wherever they were made."""
    found = [json.loads(pl.read_parquet_metadata(path)["counts"]) for path in paths]
    for number, counter in enumerate(_counters(model)):
        counter.clear()
        for counts in found:
            counter.update(counts[number])


def _predict_part(model: Model, part: pl.DataFrame, probabilities: bool) -> pl.DataFrame:
    columns = [part[column].to_list() for column in model.task.columns]
    return predict_texts(model, part["index"], columns, probabilities=probabilities)


def submission_files(settings: "TaskSettings", folder: Path) -> dict[Path, Path]:
    """Return the files that GLUE wants for a task, each with its test table."""
    from kdcli.tasks.split import needed_files, table_name

    if settings.name not in TASKS:
        hint = f"it has {', '.join(TASKS)}; --output writes the predictions of any task"
        raise UsageError(f"GLUE has no task {settings.name!r}", key="task.name", hint=hint)
    names = TASKS[settings.name].submission
    files = {}
    for table in needed_files(settings, "test"):
        name = table_name(table, "test")
        if name not in names:
            what = f"GLUE's test tables of {settings.name} are {' and '.join(names)}"
            raise DataError(what, file=table, hint="name them so, or write the predictions with --output")
        files[folder / names[name]] = table
    return files


def begun_files(folder: Path) -> list[Path]:
    """Return the files of GLUE that a command has begun to write here and not ended."""
    try:
        return [folder / str(name) for name in json.loads((folder / UNFINISHED).read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def predict_glue(
    model: Model | Loaded[Model], settings: "TaskSettings", folder: Path, **how: Any
) -> list[PredictResult]:
    """Write GLUE's submission files for a task's test tables, with their index; ``how`` is for ``predict_file``."""
    loaded = model if isinstance(model, Loaded) else Loaded(model, type(model), ())
    files, own = submission_files(settings, folder), loaded.value.task
    if own.name in TASKS.keys() - {settings.name, settings.student_of}:
        what = f"the model is one of task {own.name}, and the tables are those of {settings.name}"
        raise DataError(what, file=settings.data_dir, hint="name a model of this task, or the profile of that one")
    task = glue_task(own, settings.name)
    spelled = Loaded[Model](_RenamedLabels(loaded, task), _RenamedLabels, (loaded, task), loaded.files)
    write_json(folder / UNFINISHED, [file.name for file in files])
    results = [predict_file(spelled, table, file, settings, **how) for file, table in files.items()]
    (folder / UNFINISHED).unlink()
    return results


def glue_task(task: Task, name: str) -> Task:
    """Return a task with its labels as GLUE writes those of ``name``: as they are, or by their readable names."""
    wanted = TASKS[name].labels
    for spelling in (task.labels, task.names):
        if set(spelling) == set(wanted) and task.is_score == (not wanted):
            return replace(task, labels=spelling)
    found, wants = (f"the labels {', '.join(labels)}" if labels else "scores" for labels in (task.labels, wanted))
    what = f"the model's task {task.name} has {found}, and GLUE's {name} has {wants}"
    raise DataError(what, hint="name a model of this task")


@dataclass(frozen=True)
class _RenamedLabels:
    model: Loaded[Model]
    task: Task
    answers_all = True  # GLUE takes a label for each row

    def logits(self, columns: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        return self.model.value.logits(columns)
