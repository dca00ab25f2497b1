"""``kd predict``: labels, or scores, for a table or for lines of text. It imports only what its model needs."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from kdcli.api import Progress, QuietReporter, Reporter
from kdcli.cli import ui
from kdcli.cli.options import FILES, Request, command, option, switch
from kdcli.cli.progress import stop_spinner
from kdcli.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from kdcli.evaluate.pair import Model

Glue = Annotated[
    Path | None, option(FILES, "--glue", "Write GLUE's submission files for the test tables here.", "FOLDER")
]
Probabilities = Annotated[bool, switch(FILES, "--probabilities", "The probability of each label too.")]
Defer = Annotated[
    bool, switch(FILES, "--defer", "A column that says what the student is unsure of.", "no, but with --agree")
]
Keep = Annotated[bool, switch(FILES, "--keep", "All columns of the table, with the predictions behind them.")]


@command(
    "kd predict --student runs/sst2 --input test.tsv --output predictions.tsv",
    "kd predict --student runs/sst2 --input reviews.parquet --output labels.parquet --probabilities",
    "echo 'a gripping film' | kd predict --student runs/sst2",
    "kd predict --student runs/mnli --glue submission --profile mnli --data-dir data/MNLI",
    "kd predict --teacher runs/sst2 --input test.tsv --json",
    "kd predict --student runs/mails --teacher MODEL --agree 0.98 --input mails.csv --output answers.csv",
    options=(
        *("student", "teacher", "input", "output", "force", "profile", "texts"),
        *("device", "precision", "offline", "resume", "engine", "deferral.agree"),
    ),
    about={
        "teacher": "Teacher instead, or for what is deferred: its folder, a run, or a hub name.|",
        "input": "Table (.parquet .tsv .csv .jsonl) or lines (.txt), also .gz; -: lines of stdin.|stdin, if piped into",
        "output": "The predictions: .parquet .tsv .csv .jsonl .txt, also .gz.|stdout",
        "deferral_agree": "Agreement with the teacher that the student keeps to.|the one it was calibrated for",
        "task_data_dir": "With --glue: folder with the test tables.",
    },
)
def predict(
    request: Request,
    *,
    glue: Glue = None,
    probabilities: Probabilities = False,
    keep: Keep = False,
    defer: Defer = False,
) -> None:
    """The result is TSV on stdout (also with --output -), or the file of --output (a .txt holds the predictions alone):
    the columns index and prediction, and probabilities if you ask for them. A killed run with --output continues where
    it stopped. With --defer or --agree a student says which texts it is unsure of; with --teacher too, the teacher
    answers those.
    """
    input, teacher = request.input, request.teacher
    defer = defer or request.flags["deferral.agree"] is not None
    if request.student is None and (defer or teacher is None):
        raise UsageError("predict takes --student or --teacher", hint="name one of the two; with --agree, or both")
    if request.student is not None and teacher is not None and not defer:
        hint = "name one of the two; with --agree 0.98 the teacher answers what the student is unsure of"
        raise UsageError("predict takes either --student or --teacher", hint=hint)
    if str(request.output) == "-":
        request = replace(request, output=None)  # stdout, the default
    lines = glue is None and str(input or "-") == "-"
    _check_usage(request, glue, probabilities, lines, defer and teacher is None)
    if keep and (request.output is None or lines or glue is not None):
        raise UsageError("--keep needs a table and a file", hint="name them with --input FILE --output FILE")
    if glue is None and not lines:
        request = with_columns_of_run(request)
    own = _own_profile(request, glue)
    pair = teacher is not None and request.student is not None
    # Settings are read only where something sets one: that takes a third of a second.
    set_by = (request.profile, own, request.sets, request.text_col, *request.flags.values())
    needed = pair or any(set_by) or any(name.startswith("KD_") for name in os.environ)
    settings = request.load_for_model(own) if needed else None
    from kdcli.evaluate.pair import open_deferring, open_student, open_teacher
    from kdcli.evaluate.predict import begun_files, predict_file, predict_glue, submission_files
    from kdcli.files import check_output
    from kdcli.parts import engine_of

    outputs = [request.output] if request.output is not None else []
    begun: list[Path] = []
    if glue is not None and settings is not None:
        outputs, begun = list(submission_files(settings.task, glue)), begun_files(glue)
    with ui.reporting("predict") as reporter, ExitStack() as ending:
        if request.student is not None:
            loaded = open_student(request.student, settings.device if settings else "auto")
            if defer:
                agree = settings.deferral.agree if settings and request.flags["deferral.agree"] is not None else None
                loaded = open_deferring(loaded, agree, teacher, settings, reporter, request.output)
        else:
            assert teacher is not None and settings is not None
            loaded = open_teacher(teacher, settings, reporter, output=request.output)
        for file in outputs:
            check_output(file, [*loaded.folders, *filter(None, [input])], force=request.force, ours=file in begun)
        table = None
        if settings is not None and not lines:
            from kdcli.tasks.split import table_settings

            profiled = bool(request.profile or own)
            table = table_settings(loaded.model.task, settings.task, loaded.folders[0], profiled=profiled)
        if glue is None and (request.output is None or lines):
            _write_stream(request, loaded.model, table, probabilities, lines, reporter)
            loaded.warn(reporter)
            return
        engine = engine_of(settings) if settings and not loaded.is_remote else None
        if engine is not None:
            ending.callback(engine.stop)
        how: dict[str, Any] = {"resume": request.resume == "auto", "engine": engine, "reporter": reporter}
        how |= {"origin": loaded.origin()}
        if glue is not None and table is not None:
            ui.show({"files": predict_glue(loaded.loaded, table, glue, **how)})
        elif request.output is not None and input is not None:
            more = {"probabilities": probabilities, "keep": keep, **how}
            ui.show(predict_file(loaded.loaded, input, request.output, table, **more))
        loaded.warn(reporter)


def _check_usage(request: Request, glue: Path | None, probabilities: bool, lines: bool, defer: bool) -> None:
    """Check that the flags go together, and that there is something to predict."""
    if glue is not None:
        others = {"--input": request.input, "--output": request.output, "--probabilities": probabilities or None}
        others["--defer without --teacher"] = defer or None
        for flag in (name for name, value in others.items() if value is not None):
            raise UsageError(f"--glue and {flag} do not go together", hint="--glue names tables and files itself")
    elif request.flags["task.data_dir"] is not None:
        raise UsageError("--data-dir is for --glue, which predicts its test tables", hint="name a table with --input")
    if lines and request.input is None and sys.stdin.isatty():
        hint = "name a table with --input FILE, pipe lines of text into kd predict, or type them with --input -"
        raise UsageError("there is nothing to predict", hint=hint)
    if lines and request.text_col is not None:
        raise UsageError("lines from stdin have no columns", hint="--text-col is for a table: name it with --input")


def with_columns_of_run(request: Request, *, label: bool = False) -> Request:
    """Name the text columns of the model's run, and with ``label`` that of the labels, where nothing else does."""
    named = (request.profile, request.text_col, os.environ.get("KD_TASK__TEXT_COLUMNS"))
    lines = ".txt" in Path(str(request.input)).suffixes
    if lines or any(named) or any(str(one).startswith("task.text_columns") for one in request.sets or ()):
        return request
    from kdcli.run import columns_of

    texts, gold = columns_of(Path(str(request.student or request.teacher)))
    first, second = [*texts, None, None][:2]
    flags = dict(request.flags)
    if label and flags.get("task.label_column") is None:
        flags["task.label_column"] = gold
    return replace(request, text_col=first, text2_col=second, flags=flags)


def _own_profile(request: Request, glue: Path | None) -> Path | None:
    """Return the profile of the model's run, where the command needs one and has none."""
    if request.profile is not None or (request.teacher is None and glue is None):
        return None
    from kdcli.run import profile_of

    for model in (request.teacher, request.student):
        if model is not None and (own := profile_of(Path(model))):
            return own
    if request.student is not None and glue is None:  # a pair: the student knows the task
        return None
    flag = "--teacher" if request.teacher is not None else "--glue"
    hint = "name the run folder of `kd distil` or `kd run-all`, or a profile (--profile sst2) that has its labels"
    raise UsageError(f"{flag} needs a profile, which says what the task is", hint=hint)


def _write_stream(
    request: Request, model: "Model", table: Any, probabilities: bool, lines: bool, reporter: Reporter
) -> None:
    """Write predictions as they are made: to a file, as JSON, or as TSV until nobody reads them any more."""
    stop_spinner()  # somebody may type the lines
    from kdcli.evaluate.predict import predict_lines, predict_table, write_predictions

    if lines:
        rows = predict_lines(model, cast(Any, sys.stdin.buffer), reporter, probabilities=probabilities)
    else:
        assert request.input is not None
        rows = predict_table(model, request.input, table, reporter, probabilities=probabilities)
    on_screen = sys.stdout.isatty() and not ui.output.json  # where the rows themselves show the progress
    with (QuietReporter() if on_screen else reporter).progress("predict") as progress:
        rows = _counted(rows, progress)
        if request.output is not None:
            ui.show(write_predictions(request.output, rows, model, probabilities=probabilities))
        elif ui.output.json:
            # By way of JSON, which writes a float32 as short as a file does.
            ui.show({"predictions": [row for batch in rows for row in json.loads(batch.write_json())]})
        else:
            for number, batch in enumerate(rows):
                if not ui.write(batch.write_csv(separator="\t", quote_style="never", include_header=not number)):
                    return


def _counted(batches: "Iterator[pl.DataFrame]", progress: Progress) -> "Iterator[pl.DataFrame]":
    for batch in batches:
        yield batch
        progress.advance(batch.height)
