"""``kd plugins new``: a plugin of one's own to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Group
from rich.text import Text

from kdcli.cli import flags, ui

if TYPE_CHECKING:
    from kdcli.scaffold.new import NewPlugin

app = typer.Typer()


@app.command(epilog=flags.example("kd plugins new generator ngram", "kd plugins new student cnn --output ~/src/kd-cnn"))
def new(
    kind: Annotated[
        Literal["generator", "student", "tagger"],
        typer.Argument(metavar="generator|student|tagger", help="What it is.", show_default=False),
    ],
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Its name: lower-case letters, digits, underscores.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write.",
            show_default="kd-NAME",
            metavar="FOLDER",
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    force: flags.Force = False,
) -> None:
    """Write a plugin that works: a package to install, with tests and a README; change it into your own."""
    from kdcli.scaffold.new import new_plugin

    written = new_plugin(kind=kind, name=name, folder=output, force=force)
    ui.show({**ui.plain(written), "next": _next(written)}, _written)


def _next(plugin: NewPlugin) -> list[str]:
    folder = shlex.quote(str(plugin.folder))
    return [f"pip install -e {folder}", f"kd plugins check {plugin.name}", f"python -m pytest {folder}"]


def _written(result: dict[str, Any]) -> Group:
    files = [Text(f"  {file}") for file in result["files"]]
    steps = [Text(f"  {step}") for step in result["next"]]
    title = Text.assemble("the ", result["kind"], " ", (result["name"], "bold"), f" in {result['folder']}")
    return Group(title, *files, Text("next:"), *steps)
