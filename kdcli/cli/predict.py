"""``kd predict``: labels, or scores, for a table or for lines of text. It imports only what its model needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from kdcli.cli import ui
from kdcli.cli.options import FILES, Request, command, option, switch
from kdcli.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from kdcli.api import Progress, Reporter
    from kdcli.config.schema import Settings, TaskSettings
    from kdcli.evaluate.predict import LoadedModel

Teacher = Annotated[
    str | None,
    option(FILES, "--teacher", "Fine-tuned teacher: its folder, a run, or with --profile a hub name.", "FOLDER|NAME"),
]
Input = Annotated[
    Path | None,
    option(
        *(
            FILES,
            "--input -i",
            "Table (.tsv .csv .jsonl .parquet) or lines (.txt), also .gz; -: lines of stdin.",
        ),
        *("FILE|-", "stdin, if something is piped into it"),
    ),
]
Glue = Annotated[
    Path | None,
    option(FILES, "--glue", "Write GLUE's submission files of the test tables into it.", "FOLDER"),
]
Probabilities = Annotated[
    bool, switch(FILES, "--probabilities/--no-probabilities", "The probability of each label too.")
]


@dataclass(frozen=True)
class _Texts:
    """What is predicted and where that goes; each field is the flag of that name."""

    input: Path | None
    output: Path | None
    glue: Path | None
    probabilities: bool

    @property
    def lines(self) -> bool:
        """Whether lines from stdin are predicted."""
        return self.glue is None and (self.input is None or str(self.input) == "-")


@command(
    "kd predict --student runs/sst2 --input test.tsv --output predictions.tsv",
    "kd predict --student runs/sst2 --input reviews.parquet --output labels.parquet --probabilities",
    "echo 'a gripping film' | kd predict --student runs/sst2",
    "kd predict --student runs/mnli --glue submission --profile mnli --data-dir data/MNLI",
    "kd predict --teacher runs/sst2 --input test.tsv --json",
    options=("student", "output", "force", "profile", "texts", "device", "precision", "offline", "resume"),
)
def predict(
    request: Request,
    *,
    teacher: Teacher = None,
    input: Input = None,
    glue: Glue = None,
    probabilities: Probabilities = False,
) -> None:
    """Predict a label, or a score, for each text.

    The result is TSV on stdout, or the file of --output (a .txt holds the predictions alone): the columns index and
    prediction, and probabilities if you ask for them. A killed run with an output goes on where it was stopped.
    """
    if (request.student is None) == (teacher is None):
        raise UsageError("predict takes either --student or --teacher", hint="name one of the two")
    texts = _Texts(input, request.output, glue, probabilities)
    _check_usage(texts, request)
    own = _own_profile(request, teacher, glue)
    # Settings are read only where something sets one: that takes a third of a second.
    set_by = (request.profile, own, request.sets, request.text_col, *request.flags.values())
    needed = any(set_by) or any(name.startswith("KD_") for name in os.environ)
    settings = request.load_for_model(own) if needed else None
    for file in () if request.force else _outputs(texts, settings):
        ui.refuse_existing(file, force=False)
    on_screen = sys.stdout.isatty() and not ui.output.json
    with ui.reporting("predict") as reporter:
        model = _open(request.student, teacher, settings, reporter)
        profiled = bool(request.profile or own)
        reading = None
        if settings is not None and not texts.lines:
            from kdcli.tasks.task import table_settings

            reading = table_settings(model.model.task, settings.task, model.folder, profiled=profiled)
        if glue is not None or (texts.output is not None and not texts.lines):
            _write_files(texts, model, reading, request.resume == "auto", reporter)
        else:
            _write_stream(texts, model, reading, reporter, on_screen)


def _check_usage(texts: _Texts, request: Request) -> None:
    """Check that the flags go together, and that something gives lines.

    Raises:
        UsageError: Names the flag.
    """
    if texts.glue is not None:
        others = {"--input": texts.input, "--output": texts.output, "--probabilities": texts.probabilities or None}
        for flag in (name for name, value in others.items() if value is not None):
            raise UsageError(f"--glue and {flag} do not go together", hint="--glue names tables and files itself")
    elif request.flags["task.data_dir"] is not None:
        raise UsageError("--data-dir is for --glue, which predicts its test tables", hint="name a table with --input")
    if texts.lines and texts.input is None and sys.stdin.isatty():
        hint = "name a table with --input FILE, pipe lines of text into kd predict, or type them with --input -"
        raise UsageError("there is nothing to predict", hint=hint)
    if texts.lines and request.text_col is not None:
        raise UsageError("lines from stdin have no columns", hint="--text-col is for a table: name it with --input")
    both = texts.output, texts.input
    if both[0] and both[1] and both[0].exists() and both[1].exists() and both[0].samefile(both[1]):
        raise UsageError("the output would replace the input", file=texts.output, hint="name another file")


def _own_profile(request: Request, teacher: str | None, glue: Path | None) -> Path | None:
    """Return the profile of the model's run, where the command needs one and has none.

    Raises:
        UsageError: There is none.
    """
    if request.profile is not None or (teacher is None and glue is None):
        return None
    from kdcli.run.paths import profile_of

    if own := profile_of(Path(teacher or str(request.student))):
        return own
    flag = "--teacher" if teacher is not None else "--glue"
    hint = "add --profile sst2, for example, or name a run folder; `kd profile list` names the profiles"
    raise UsageError(f"{flag} needs a profile, which says what the task is", hint=hint)


def _outputs(texts: _Texts, settings: Settings | None) -> list[Path]:
    if texts.glue is None or settings is None:
        return [] if texts.output is None else [texts.output]
    from kdcli.evaluate.glue import submission_files

    return list(submission_files(settings.task, texts.glue))


def _open(student: Path | None, teacher: str | None, settings: Settings | None, reporter: Reporter) -> LoadedModel:
    from kdcli.evaluate.predict import open_student, open_teacher

    if student is not None:
        return open_student(student, settings.device if settings else "auto")
    assert teacher is not None and settings is not None
    return open_teacher(teacher, settings, reporter)


def _write_files(
    texts: _Texts, model: LoadedModel, reading: TaskSettings | None, resume: bool, reporter: Reporter
) -> None:
    """Write predictions for tables, on resumable parts."""
    how: dict[str, Any] = {"origin": model.origin(), "resume": resume, "reporter": reporter}
    if texts.glue is not None:
        from kdcli.evaluate.glue import predict_glue

        assert reading is not None
        ui.show({"files": predict_glue(model.model, reading, texts.glue, **how)})
        return
    from kdcli.evaluate.predict import predict_file

    assert texts.input is not None and texts.output is not None
    how["probabilities"] = texts.probabilities
    ui.show(predict_file(model.model, texts.input, texts.output, reading, **how))


def _write_stream(
    texts: _Texts, model: LoadedModel, reading: TaskSettings | None, reporter: Reporter, on_screen: bool
) -> None:
    """Write each prediction as soon as it is there: to stdout, or those of lines from stdin to a file."""
    from kdcli.api import QuietReporter
    from kdcli.evaluate.predict import predict_table, write_predictions

    more = {"probabilities": texts.probabilities}
    if texts.lines:
        from kdcli.evaluate.lines import predict_lines

        batches = predict_lines(model.model, cast(Any, sys.stdin.buffer), reporter, **more)
    else:
        assert texts.input is not None
        batches = predict_table(model.model, texts.input, reading, reporter, **more)
    # On a screen the rows themselves show the progress.
    with (QuietReporter() if on_screen else reporter).progress("predict") as progress:
        counted = _counted(batches, progress)
        if texts.output is not None:
            ui.show(write_predictions(texts.output, counted, model.model.task, **more))
        elif ui.output.json:
            ui.show({"predictions": [row for batch in counted for row in batch.to_dicts()]})
        else:
            _print(counted)


def _counted(batches: Iterator[pl.DataFrame], progress: Progress) -> Iterator[pl.DataFrame]:
    for batch in batches:
        yield batch
        progress.advance(batch.height)


def _print(batches: Iterator[pl.DataFrame]) -> None:
    """Print rows as TSV, until there are no more or nobody reads them."""
    header = True
    for batch in batches:
        text = batch.write_csv(separator="\t", quote_style="never", include_header=header)
        if not ui.write(text):
            return
        header = False
