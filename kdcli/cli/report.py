"""``kd report``: a run as one HTML page, or several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdcli.cli import ui
from kdcli.cli.options import Request, command

Runs = Annotated[list[Path], typer.Argument(help="Run folders; one may be half done.", metavar="RUN")]


@command(
    "kd report runs/sst2",
    "kd report runs/sst2 runs/sst2-heavy --output sst2.html",
    options=("output", "force"),
    about={"output": "The page: an .html file.|RUN/report.html"},
)
def report(request: Request, *, runs: Runs) -> None:
    """Write one HTML page.

    Several runs are compared on one page, by default report.html. A page of kd's own is replaced without --force,
    another file is not.
    """
    from kdcli.report.page import write_report

    with ui.reporting("report") as reporter:
        written = write_report(runs, output=request.output, force=request.force, reporter=reporter)
    ui.show(written)
