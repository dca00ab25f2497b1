"""``kd export``: a student as ONNX, as a web page, as one file that predicts, or for the Hugging Face Hub."""

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Group
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, RUN, Request, command, option, switch
from kdcli.errors import DataError

if TYPE_CHECKING:
    from kdcli.config.load import Profile

CARD = "Model card"

Int8 = Annotated[bool, switch(RUN, "--int8", "A graph with 8-bit weights too.", "yes")]
Check = Annotated[
    bool, switch(RUN, "--check", "Compare with PyTorch on random words, and on dev texts of a run.", "yes")
]
Licence = Annotated[str, option(CARD, "--license", "Licence, by its name on the Hub: mit.", "NAME", default="unknown")]
Language = Annotated[str, option(CARD, "--language", "ISO 639 code of the texts' language.", "CODE", default="en")]
Dataset = Annotated[
    str | None,
    option(CARD, "--dataset", "Name of the training texts on the Hub.", "NAME", default="known for GLUE's tasks"),
]

Single = Annotated[bool, switch(FILES, "--single", "One .html file that opens from the disk.")]
_RUNTIME = "The page's libraries: a folder with what `npm pack` has written, or the address of a registry of npm."
Runtime = Annotated[
    str | None, option(FILES, "--runtime", _RUNTIME, "FOLDER|URL", "npm, from its cache or the network")
]


@command(
    "kd export onnx --student runs/demo --output onnx",
    options=("student", "output", "force", "profile", "texts"),
    required=("student", "output"),
    about={"output": "Folder of the graphs."},
)
def onnx(request: Request, *, int8: Int8 = True, check: Check = True) -> None:
    """The float32 graph must give PyTorch's logits within 1e-5, padded or not; the 8-bit graph's distance is shown."""
    from kdcli.export.onnx import export_onnx
    from kdcli.tasks.split import split_files

    student, output = _places(request)
    profile = _profile(request)
    dev = None
    if check and profile is not None:
        task = profile.settings.task
        try:
            dev = task if request.profile is not None or split_files(task, "dev") else None
        except DataError as error:  # the run's data are gone
            ui.info(f"{error}: random words alone are compared")
    with ui.reporting("export onnx") as reporter:
        how: dict[str, Any] = {"int8": int8, "check": check, "dev": dev, "force": request.force, "reporter": reporter}
        exported = export_onnx(student=student, output=output, **how)
    ui.show(exported)


@command(
    "kd export web --student runs/demo --output web",
    "kd export web --student runs/demo --output demo.html --single",
    options=("student", "output", "force"),
    required=("student", "output"),
    about={"output": "Folder to write; with --single, the file."},
)
def web(request: Request, *, single: Single = False, runtime: Runtime = None) -> None:
    """The page classifies what one types and colours the words by their effect, all in the browser: the student
    runs there on onnxruntime-web and @huggingface/tokenizers. It asks no other host for anything.
    """
    from kdcli.export.web import export_web

    student, output = _places(request)
    with ui.reporting("export web") as reporter:
        exported = export_web(
            student=student, output=output, single=single, runtime=runtime, force=request.force, reporter=reporter
        )
    serve = f"{Path(sys.executable).name} -m http.server --bind 127.0.0.1 --directory {quote(str(output))}"
    how = f"open {output} in a browser" if single else serve
    ui.show(exported, lambda result: Group(ui.describe(result), Text("next"), Text(how, "cyan")))


@command(
    "kd export hub-folder --student runs/demo --output hub --license mit",
    options=("student", "output", "force"),
    required=("student", "output"),
    about={"output": "Folder to write."},
)
def hub_folder(
    request: Request, *, licence: Licence = "unknown", language: Language = "en", dataset: Dataset = None
) -> None:
    """`hf upload` takes it as it is."""
    from kdcli.export.hub import Origin, export_hub_folder

    student, output = _places(request)
    profile = _profile(request)
    origin = {}
    if profile is not None:
        teacher, method = profile.settings.teacher, profile.settings.transfer.method
        scratch = f"{teacher.config.get('model_type')}, trained from scratch"
        origin = {"teacher": scratch if teacher.model == "config" else teacher.model, "transfer": method}
    made = Origin(licence, language, dataset, **origin)
    exported = export_hub_folder(student=student, output=output, origin=made, force=request.force)
    upload = Text(f"hf upload USER/NAME {quote(str(output))}", "cyan")
    ui.show(exported, lambda result: Group(ui.describe(result), Text("next"), upload))


@command(
    "kd export binary --student runs/demo --output predict",
    options=("student", "output", "force"),
    required=("student", "output"),
    about={"output": "File to write."},
)
def binary(request: Request) -> None:
    """It is for this version of Python and this kind of machine, and needs nothing else. It writes what `kd predict`
    writes for lines from stdin; its first start unpacks it into ~/.cache/kd.
    """
    from kdcli.export.binary import export_binary

    student, output = _places(request)
    ui.show(export_binary(student=student, output=output, force=request.force))


def _places(request: Request) -> tuple[Path, Path]:
    """Return the student's folder and the output, which the command line must name."""
    from kdcli.run import student_folder

    assert request.student is not None and request.output is not None
    return student_folder(request.student), request.output


def _profile(request: Request) -> "Profile | None":
    """Return the profile of the command line, or that of the student's run; None where there is neither."""
    from kdcli.run import profile_of

    assert request.student is not None
    alone = request.profile is None and request.flags.get("task.data_dir") is None
    own = profile_of(request.student) if alone else None
    return request.load(str(own) if own else None, uses=()) if request.profile or own or not alone else None
