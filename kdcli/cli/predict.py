"""``kd predict``: labels, or scores, for a table or for lines of text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from kdcli.cli import flags, ui
from kdcli.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from kdcli.api import Progress, Reporter, Task
    from kdcli.config.schema import Settings, TaskSettings
    from kdcli.evaluate.models import Opened
    from kdcli.evaluate.predict import PredictResult

app = typer.Typer()

Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        help="Fine-tuned teacher: its folder, that of a run, or a hub name. All but a run need --profile.",
        metavar="FOLDER|NAME",
        rich_help_panel=flags.FILES,
    ),
]
Input = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        help="Table (.tsv .csv .jsonl .parquet) or lines of text (.txt), each with .gz or not; -: lines from stdin.",
        show_default="stdin, if something is piped into it",
        metavar="FILE|-",
        rich_help_panel=flags.FILES,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write; its suffix tells the form. A .txt holds the predictions alone.",
        show_default="TSV on stdout",
        metavar="FILE",
        rich_help_panel=flags.FILES,
    ),
]
Glue = Annotated[
    Path | None,
    typer.Option(
        "--glue",
        help="Write GLUE's submission files of the task (SST-2.tsv, ...) into this folder, for its test tables.",
        metavar="FOLDER",
        rich_help_panel=flags.FILES,
    ),
]
Probabilities = Annotated[
    bool,
    flags.switch("--probabilities/--no-probabilities", help="The probability of each label too.", panel=flags.FILES),
]


@app.command(
    epilog=flags.example(
        "kd predict --student runs/sst2 --input test.tsv --output predictions.tsv",
        "kd predict --student runs/sst2 --input reviews.parquet --output labels.parquet --probabilities",
        "echo 'a gripping film' | kd predict --student runs/sst2",
        "kd predict --student runs/mnli --glue submission --profile mnli --data-dir data/MNLI",
        "kd predict --teacher runs/sst2 --input test.tsv --json",
    )
)
def predict(
    student: flags.MaybeStudentOrRun = None,
    teacher: Teacher = None,
    input_: Input = None,
    output: Output = None,
    force: flags.Force = False,
    glue: Glue = None,
    probabilities: Probabilities = False,
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    shard: flags.ShardOf = None,
    offline: flags.Offline = False,
    resume: flags.Resume = "auto",
) -> None:
    """Predict a label, or a score, for each text: the columns index and prediction, and probabilities if asked for.

    What is written to a file is resumable: the same command goes on where it was stopped.
    """
    if (student is None) == (teacher is None):
        raise UsageError("predict takes either --student or --teacher", hint="name one of the two")
    wish = _Wish(input_, output, glue, probabilities, shard, resume)
    _check_usage(wish, data_dir, text_col)
    named = profile or _own_profile(student, teacher, glue)
    values = {**flags.tables(data_dir, text_col, text2_col, None), "device": device, "precision": precision}
    # Settings are left aside where nothing asks for any: reading and checking them takes a third of a second.
    asked = named or set_ or any(values.values()) or any(name.startswith("KD_") for name in os.environ)
    settings = flags.load_for_model(named, set_, values) if asked else None
    if not force:
        _refuse_existing(wish, settings)
    on_screen = sys.stdout.isatty() and not ui.wishes.json
    with ui.reporting("predict") as reporter:
        opened = _open(student, teacher, settings, reporter)
        how = None if wish.lines or settings is None else _reading(opened, settings.task, named is not None)
        if glue is not None or (output is not None and not wish.lines):
            _write_files(wish, opened, how, reporter)
        else:
            _write_stream(wish, opened, how, reporter, on_screen)


@dataclass(frozen=True)
class _Wish:
    """What is to become of which texts; each field is the flag of that name."""

    input: Path | None
    output: Path | None
    glue: Path | None
    probabilities: bool
    shard: str | None
    resume: str

    @property
    def lines(self) -> bool:
        """Whether lines from stdin are predicted."""
        return self.glue is None and (self.input is None or str(self.input) == "-")


def _check_usage(wish: _Wish, data_dir: str | None, text_col: str | None) -> None:
    """Refuse flags that do not go together, and to wait for lines that nobody knows are waited for.

    Raises:
        UsageError: Says which.
    """
    if wish.glue is not None:
        others = {"--input": wish.input, "--output": wish.output, "--probabilities": wish.probabilities or None}
        for flag in (name for name, value in others.items() if value is not None):
            raise UsageError(f"--glue and {flag} do not go together", hint="--glue names tables and files itself")
    elif data_dir is not None:
        raise UsageError("--data-dir is for --glue, which predicts its test tables", hint="name a table with --input")
    if wish.lines and wish.input is None and sys.stdin.isatty():
        hint = "name a table with --input FILE, pipe lines of text into kd predict, or type them with --input -"
        raise UsageError("there is nothing to predict", hint=hint)
    if wish.lines and text_col is not None:
        raise UsageError("lines from stdin have no columns", hint="--text-col is for a table: name it with --input")
    if wish.shard is not None and (wish.lines or not (wish.glue or wish.output)):
        raise UsageError("--shard shares the rows of a table among processes", hint="name --input and --output")
    if wish.output and wish.input and wish.output.exists() and wish.input.exists() and wish.output.samefile(wish.input):
        raise UsageError("the output would replace the input", file=wish.output, hint="name another file")


def _own_profile(student: Path | None, teacher: str | None, glue: Path | None) -> str | None:
    """Return the profile of the run that the model lies in, where one is needed.

    Raises:
        UsageError: There is none.
    """
    if teacher is None and glue is None:
        return None
    if own := flags.own_profile(Path(teacher or str(student))):
        return own
    flag = "--teacher" if teacher is not None else "--glue"
    hint = "add --profile sst2, for example, or name a run folder; `kd profile list` names the profiles"
    raise UsageError(f"{flag} needs a profile, which says what the task is", hint=hint)


def _refuse_existing(wish: _Wish, settings: Settings | None) -> None:
    """Refuse to replace files, before the model is loaded.

    Raises:
        DataError: Names the file.
    """
    files = [] if wish.output is None else [wish.output]
    if wish.glue is not None and settings is not None:
        from kdcli.evaluate.glue import submission_files

        files = list(submission_files(settings.task, wish.glue))
    for file in files:
        if file.exists():
            raise DataError("the output exists already", file=file, hint="--force overwrites it")


def _open(student: Path | None, teacher: str | None, settings: Settings | None, reporter: Reporter) -> Opened:
    from kdcli.evaluate.models import open_student, open_teacher

    if student is not None:
        return open_student(student, settings.device if settings else "auto")
    assert teacher is not None and settings is not None
    return open_teacher(teacher, settings, reporter)


def _reading(opened: Opened, asked: TaskSettings, profiled: bool) -> TaskSettings:
    from kdcli.evaluate.reading import reading

    return reading(opened.model.task, asked, opened.folder, profiled=profiled)


def _write_files(wish: _Wish, opened: Opened, reading: TaskSettings | None, reporter: Reporter) -> None:
    """Write predictions for tables, on resumable parts."""
    from kdcli.evaluate.glue import predict_glue
    from kdcli.evaluate.predict import predict_file
    from kdcli.parts.parts import Shard

    how: dict[str, Any] = {"origin": opened.origin(), "shard": Shard.parse(wish.shard), "reporter": reporter}
    how["resume"] = wish.resume == "auto"
    if wish.glue is not None:
        assert reading is not None
        ui.show({"files": predict_glue(opened.model, reading, wish.glue, **how)}, _submission)
        return
    assert wish.input is not None and wish.output is not None
    how["probabilities"] = wish.probabilities
    written = predict_file(opened.model, wish.input, wish.output, reading, **how)
    if written is None:
        ui.info("other shards are still at work: the last of them writes the output")
    else:
        ui.show(written)


def _submission(result: dict[str, list[PredictResult]]) -> Table:
    table = ui.columns("file", "rows", numbers=1)
    for file in result["files"]:
        table.add_row(str(file.output), f"{file.rows:,}")
    return table


def _write_stream(
    wish: _Wish, opened: Opened, reading: TaskSettings | None, reporter: Reporter, on_screen: bool
) -> None:
    """Write predictions as they are made: to stdout, or those of lines from stdin to a file."""
    from kdcli.api import QuietReporter

    batches: Iterator[pa.RecordBatch]
    if wish.lines:
        from kdcli.evaluate.lines import Stream, predict_lines

        stdin = cast(Stream, sys.stdin.buffer)
        batches = predict_lines(opened.model, stdin, reporter, probabilities=wish.probabilities)
    else:
        from kdcli.evaluate.predict import predict_table

        assert wish.input is not None
        batches = predict_table(opened.model, wish.input, reading, reporter, probabilities=wish.probabilities)
    # On a screen the rows themselves show how it goes.
    with (QuietReporter() if on_screen else reporter).progress("predict") as progress:
        counted = _counted(batches, progress)
        if wish.output is not None:
            _save(counted, wish.output, opened.model.task, wish.probabilities)
        elif ui.wishes.json:
            ui.show({"predictions": [row for batch in counted for row in batch.to_pylist()]})
        else:
            _print(counted)


def _counted(batches: Iterator[pa.RecordBatch], progress: Progress) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        progress.advance(batch.num_rows)


def _save(batches: Iterator[pa.RecordBatch], output: Path, task: Task, probabilities: bool) -> None:
    from kdcli.evaluate.predict import file_schema
    from kdcli.tables.read import write_table

    with write_table(output, file_schema(output, task, probabilities=probabilities)) as table:
        for batch in batches:
            table.write(batch)
    ui.show({"rows": table.rows, "output": str(output)})


def _print(batches: Iterator[pa.RecordBatch]) -> None:
    """Print rows as TSV, until there are no more or nobody reads them."""
    import pyarrow as pa

    header = True
    for batch in batches:
        columns = [[value or "" for value in column.cast(pa.string()).to_pylist()] for column in batch]
        lines = ["\t".join(batch.schema.names)] * header + list(map("\t".join, zip(*columns, strict=True)))
        if not ui.write("".join(f"{line}\n" for line in lines)):
            return
        header = False
