"""``kd predict``: labels, or scores, for a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdcli.cli import flags, ui
from kdcli.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from kdcli.api import Task
    from kdcli.profile.schema import TaskSettings

app = typer.Typer()


@app.command(epilog=flags.example("kd predict --student runs/demo/student --input test.tsv --output predictions.tsv"))
def predict(
    input_: flags.Input,
    student: Annotated[
        Path | None, typer.Option("--student", help="Student folder.", rich_help_panel=flags.FILES)
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher", help="Fine-tuned teacher: a folder or hub name; needs a profile.", rich_help_panel=flags.FILES
        ),
    ] = None,
    output: flags.MaybeOutput = None,
    force: flags.Force = False,
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    device: flags.Device = None,
    precision: flags.Precision = None,
    offline: flags.Offline = False,
) -> None:
    """Predict a label, or a score, for each row of a table: the columns index and prediction, as TSV."""
    from kdcli.pipeline.device import resolve
    from kdcli.pipeline.predict import Model
    from kdcli.pipeline.predict import predict as run

    if (student is None) == (teacher is None):
        raise UsageError("predict takes either --student or --teacher", hint="name one of the two")
    if teacher is not None and profile is None:
        hint = "add --profile sst2, for example; `kd profile list` names them"
        raise UsageError("--teacher needs a profile, which says what the task is", hint=hint)
    if output is not None and output.exists() and not force:
        raise DataError("the output exists already", file=output, hint="--force overwrites it")
    tables = flags.tables(None, text_col, text2_col, None)
    chosen = flags.load(profile, set_, {**tables, "device": device, "precision": precision})
    settings, where = chosen.settings, resolve(chosen.settings.device)
    with ui.reporting("predict") as reporter:
        model: Model
        if student is not None:
            from kdcli.student.folder import load_student

            model = load_student(student, where)
        else:
            from kdcli.tasks.task import task_from
            from kdcli.teacher.model import load_teacher

            model = load_teacher(
                str(teacher),
                task_from(settings.task),
                max_length=settings.teacher.max_length,
                device=where,
                precision=settings.precision,
                reporter=reporter,
            )
        task = settings.task if profile else _reading(model.task, settings.task.text_columns)
        predictions = run(model, input_, task, reporter)
    _write(predictions, output)


def _reading(task: Task, text_columns: tuple[str, ...]) -> TaskSettings:
    """Return how to read a table for a student without a profile: as its task says, in the columns asked for."""
    from kdcli.tasks.task import settings_of

    if len(text_columns) not in (0, len(task.columns)):
        needs = "--text-col alone" if task.kind == "single" else "--text-col and --text2-col"
        raise UsageError(f"the student's task is one of {task.kind} texts", hint=f"it takes {needs}")
    return settings_of(task).model_copy(update={"text_columns": text_columns})


def _write(predictions: pa.Table, output: Path | None) -> None:
    from kdcli.data.tables import write_table

    if output is not None:
        with write_table(output, predictions.schema) as table:
            table.write(predictions)
        ui.show({"rows": len(predictions), "output": str(output)})
        return
    if ui.wishes.json:
        ui.show({"predictions": predictions.to_pylist()})
        return
    columns = predictions.to_pydict()
    rows = zip(*columns.values(), strict=True)
    ui.write("".join(f"{line}\n" for line in ("\t".join(columns), *map("\t".join, rows))))
