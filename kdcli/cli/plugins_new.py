"""``kd plugins new``: a plugin of your own to begin with."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

import typer
from rich.console import Group
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import Request, command

Kind = Annotated[
    Literal["generator", "student", "tagger"], typer.Argument(metavar="generator|student|tagger", help="Its kind.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name: lower-case letters, digits, underscores.")]


@command(
    "kd plugins new generator ngram",
    "kd plugins new student cnn --output ~/src/kd-cnn",
    options=("output", "force"),
)
def new(request: Request, *, kind: Kind, name: Name) -> None:
    """Write a plugin that works.

    The default output is kd-NAME.
    """
    from kdcli.scaffold import new_plugin

    plugin = new_plugin(kind=kind, name=name, folder=request.output, force=request.force)
    folder = shlex.quote(str(plugin.folder))
    steps = [f"pip install -e {folder}", f"kd plugins check {plugin.name}", f"python -m pytest {folder}"]
    ui.show({**ui.plain(plugin), "next": steps}, _written)


def _written(result: dict[str, Any]) -> Group:
    files = [Text(f"  {file}") for file in result["files"]]
    steps = [Text(f"  {step}") for step in result["next"]]
    title = Text.assemble("the ", result["kind"], " ", (result["name"], "bold"), f" in {result['folder']}")
    return Group(title, *files, Text("next:"), *steps)
