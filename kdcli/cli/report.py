"""``kd report``: a run as one HTML page, or several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from kdcli.cli import flags, ui

app = typer.Typer()


@app.command(epilog=flags.example("kd report runs/sst2", "kd report runs/sst2 runs/sst2-heavy --output sst2.html"))
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; one may be half done.", metavar="RUN")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Page to write.",
            show_default="RUN/report.html; of several runs report.html",
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    force: flags.Force = False,
) -> None:
    """Write one HTML page that needs no other file: results, curves, transfer set, disagreements, settings.

    With several runs, one page compares them. A page that kd wrote is written again unasked, any other file is not.
    """
    from kdcli.report.page import Report, write_report

    with ui.reporting("report") as reporter:
        written = write_report(runs, output=output, force=force, reporter=reporter)

    def line(page: Report) -> RenderableType:
        left_out = f"; not there yet: {', '.join(page.left_out)}" if page.left_out else ""
        return Text(f"{page.output} ({page.bytes / 1e6:.1f} MB: {', '.join(page.sections)}{left_out})")

    ui.show(written, line)
