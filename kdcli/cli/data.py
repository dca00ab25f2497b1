"""``kd data``: what can be had, and having it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcli.cli import data_check, flags, stage, ui

if TYPE_CHECKING:
    from kdcli.download.get import Got

app = typer.Typer(name="data", help="Tasks, word vectors and transfer sets: list, get and check them.")
app.add_typer(data_check.app)


def _names(incomplete: str) -> list[str]:
    from kdcli.download.sources import SOURCES

    return [source.name for source in SOURCES if source.name.startswith(incomplete)]


@app.command("list", epilog=flags.example("kd data list"))
def list_() -> None:
    """List what can be had, from where, and what is here already."""
    from kdcli.download.get import available

    ui.show({"sources": available()}, _listed)


@app.command(
    epilog=flags.example(
        "kd data get sst2", "kd data get glove.840B.300d --output ~/vectors/glove", "kd data get rte -f"
    )
)
def get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What `kd data list` names.", autocompletion=_names)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to write.",
            show_default="data/NAME",
            metavar="FOLDER",
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            help="Take it from here: a URL, a dataset of the Hub, or a file or folder of this machine.",
            show_default="sources.NAME of the profile",
            metavar="URL|DATASET|PATH",
            rich_help_panel=flags.FILES,
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", help="SHA-256 that the file must have.", metavar="HEX", rich_help_panel=flags.FILES),
    ] = None,
    force: flags.Force = False,
    profile: flags.ProfileName = None,
    offline: flags.Offline = False,
) -> None:
    """Get a task's tables, word vectors or transfer sets, as files that the other commands take.

    A download that was broken off goes on where it stopped. Proxies are taken from HTTPS_PROXY and HTTP_PROXY.
    """
    from kdcli.download.get import get as run

    elsewhere = flags.load(profile, None, {}, default="base", uses=()).settings.sources
    with ui.reporting(f"data get {name}") as reporter:
        got = run(
            name,
            output,
            url=url or elsewhere.get(name),
            digest=sha256,
            offline=offline,
            force=force,
            reporter=reporter,
        )
    ui.show(got, _shown)


def _listed(result: dict[str, Any]) -> Table:
    table = ui.columns("name", "kind", "from", "here", "what it is", "size", numbers=1)
    for source in result["sources"]:
        size = _size(source["size"]) if source["size"] else ""
        here = Text(str(source["here"] or ""), "green")
        host = urlsplit(source["address"]).hostname or source["address"]
        table.add_row(Text(source["name"], "bold"), source["kind"], host, here, Text(source["about"]), size)
    return table


def _shown(got: Got) -> RenderableType:
    files = ui.columns("file", "holds", "rows", "size", numbers=2)
    for file in got.files:
        rows = "" if file.rows is None else f"{file.rows:,}"
        files.add_row(Text(file.path), file.holds, rows, _size(file.size))
    about = {"folder": str(got.folder), "from": got.address, "by": got.cite}
    notes = [Text(note, "dim") for note in got.notes]
    before = [] if got.done else [Text("it is here already: nothing to do")]
    after = [Text(command, "cyan") for command in got.next]
    return Group(*before, stage.panel(got.name, about, Text(""), files, *notes), Text("next"), *after)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
