"""``kd report``: a run as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli import ui
from kdcli.cli.options import Request, command

Run = Annotated[Path, typer.Argument(help="Run folder, also of a run that is half done.", metavar="RUN")]


@command(
    "kd report runs/sst2",
    "kd report runs/sst2 --output sst2.html",
    options=("output", "force"),
    about={"output": "The page: an .html file.|RUN/report.html"},
)
def report(request: Request, *, run: Run) -> None:
    """A page of kd's own is replaced without --force, another file is not."""
    from kdcli.report.page import write_report

    with ui.reporting("report") as reporter:
        written = write_report(run, output=request.output, force=request.force, reporter=reporter)
    ui.show(written)
