"""``kd export``: a student for elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcli.cli import flags, stage, ui

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdcli.config.load import Profile
    from kdcli.config.schema import TaskSettings
    from kdcli.export.hub import HubFolder
    from kdcli.export.onnx import OnnxExport
    from kdcli.export.onnx_check import Comparison

CARD = "Model card"

app = typer.Typer(name="export", help="Take a student elsewhere: as ONNX, or as a folder for the Hugging Face Hub.")

Folder = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder to write.", metavar="FOLDER", rich_help_panel=flags.FILES),
]


@app.command(epilog=flags.example("kd export onnx --student runs/demo --output onnx"))
def onnx(
    student: flags.StudentOrRun,
    output: Folder,
    force: flags.Force = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8/--no-int8",
            help="A graph with 8-bit weights too.",
            show_default="yes",
            metavar="",
            rich_help_panel=flags.RUN,
        ),
    ] = True,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Compare with PyTorch: on random words, and on dev texts if a profile or run says where they are.",
            show_default="yes",
            metavar="",
            rich_help_panel=flags.RUN,
        ),
    ] = True,
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
) -> None:
    """Write a student as ONNX graphs, in float32 and in 8 bits; onnxruntime and tokenizers alone run them.

    The float32 graph must give PyTorch's logits within 1e-5, padded or not; how near the 8-bit one comes is told.
    """
    from kdcli.export.onnx import export_onnx
    from kdcli.run.places import student_folder

    chosen = _profile(student, profile, set_, flags.tables(data_dir, text_col, text2_col, None))
    with ui.reporting("export onnx") as reporter:
        exported = export_onnx(
            student=student_folder(student),
            output=output,
            int8=int8,
            check=check,
            dev=_dev(chosen, asked=profile is not None) if check else None,
            force=force,
            reporter=reporter,
        )
    ui.show(exported, _exported)


@app.command("hub-folder", epilog=flags.example("kd export hub-folder --student runs/demo --output hub --onnx"))
def hub_folder(
    student: flags.StudentOrRun,
    output: Folder,
    force: flags.Force = False,
    licence: Annotated[
        str, typer.Option("--license", help="Licence, as the Hub names it: mit.", rich_help_panel=CARD)
    ] = "unknown",
    language: Annotated[
        str, typer.Option("--language", help="Language of the texts, as ISO 639 has it.", rich_help_panel=CARD)
    ] = "en",
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Its training texts' name on the Hub.",
            show_default="known for GLUE's tasks",
            rich_help_panel=CARD,
        ),
    ] = None,
    onnx: Annotated[
        bool, flags.switch("--onnx/--no-onnx", help="Put the student as ONNX into it, checked.", panel=flags.FILES)
    ] = False,
) -> None:
    """Write a student as a folder for the Hugging Face Hub, with a filled model card: `hf upload` takes it as it is."""
    from kdcli.export.hub import Origin, export_hub_folder
    from kdcli.run.places import student_folder

    chosen = _profile(student, None, None, {})
    told = {}
    if chosen is not None:
        teacher = chosen.settings.teacher
        scratch = f"{teacher.config.get('model_type')}, trained from scratch"
        told["teacher"] = scratch if teacher.model == "config" else teacher.model
        told["transfer"] = chosen.settings.transfer.method
    with ui.reporting("export hub-folder") as reporter:
        exported = export_hub_folder(
            student=student_folder(student),
            output=output,
            origin=Origin(licence, language, dataset, **told),
            onnx=onnx,
            dev=_dev(chosen, asked=False) if onnx else None,
            force=force,
            reporter=reporter,
        )
    ui.show(exported, _uploadable)


def _profile(student: Path, asked: str | None, sets: Sequence[str] | None, values: dict[str, object]) -> Profile | None:
    """Return the profile asked for, or that of the student's run; None where there is neither."""
    from kdcli.run.places import profile_of

    own = profile_of(student) if asked is None and values.get("task.data_dir") is None else None
    name = str(own) if own else asked
    loaded = flags.load(name, sets, values, uses=())
    return loaded if name else None


def _dev(profile: Profile | None, *, asked: bool) -> TaskSettings | None:
    """Return where dev texts lie; None where no profile says so, or a run's own have gone since."""
    from kdcli.errors import DataError
    from kdcli.tasks.split import has_split

    if profile is None:
        return None
    task = profile.settings.task
    try:
        return task if asked or has_split(task, "dev") else None
    except DataError as error:
        ui.info(f"{error}: random words alone are compared")
        return None


def _exported(result: OnnxExport) -> RenderableType:
    sizes = {file: f"{size:.1f} MB" for file, size in result.megabytes.items()}
    parts: list[RenderableType] = [Text(""), _compared(result.comparisons)] if result.comparisons else []
    return stage.panel("export onnx", {"task": result.task, "folder": str(result.folder), **sizes}, *parts)


def _compared(comparisons: Sequence[Comparison]) -> Table:
    scores = comparisons[0].same_labels is None
    table = ui.columns("against PyTorch", "texts", "rows", "largest difference", "Pearson" if scores else "same label")
    for one in comparisons:
        agreement = f"{one.pearson:.5f}" if one.same_labels is None else f"{one.same_labels:.2%}"
        table.add_row(one.file, one.texts, f"{one.rows:,}", f"{one.difference:.2g}", agreement)
    return table


def _uploadable(result: HubFolder) -> RenderableType:
    sizes = {file: f"{size:,} bytes" for file, size in result.bytes.items()}
    panel = stage.panel("export hub-folder", {"task": result.task, "folder": str(result.folder), **sizes})
    return Group(panel, Text("next"), Text(f"hf upload USER/NAME {result.folder}", "cyan"))
