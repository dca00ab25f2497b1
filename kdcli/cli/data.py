"""``kd data``: list and get tasks, word vectors and transfer sets."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.data_check import check
from kdcli.cli.options import FILES, Request, command, option

__all__ = ["check", "get", "list_"]


def _complete(incomplete: str) -> list[str]:
    from kdcli.download.sources import SOURCES

    return [source.name for source in SOURCES if source.name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of `kd data list`.", autocompletion=_complete)]
Url = Annotated[
    str | None,
    option(
        FILES,
        "--url",
        help="Take it from here: a URL, a dataset of the Hub, or a file or folder of this machine.",
        default="sources.NAME of the profile",
        metavar="URL|DATASET|PATH",
    ),
]
Sha256 = Annotated[str | None, option(FILES, "--sha256", help="Expected SHA-256 of the file.", metavar="HEX")]


@command("kd data list")
def list_(request: Request) -> None:
    """List what kd can get."""
    from kdcli.download.get import available

    ui.show({"sources": available()}, _sources)


@command(
    "kd data get sst2",
    "kd data get glove.840B.300d --output ~/vectors/glove",
    "kd data get rte -f",
    options=("output", "force", "profile", "offline"),
)
def get(request: Request, *, name: Name, url: Url = None, sha256: Sha256 = None) -> None:
    """Get data.

    The default output is data/NAME. A broken download goes on where it stopped. Proxies are taken from HTTPS_PROXY and
    HTTP_PROXY.
    """
    from kdcli.download.get import get as run

    sources = request.load("base", uses=()).settings.sources
    with ui.reporting(f"data get {name}") as reporter:
        result = run(
            name,
            request.output,
            url=url or sources.get(name),
            digest=sha256,
            offline=request.offline,
            force=request.force,
            reporter=reporter,
        )
    ui.show(result, _result)


def _sources(result: dict[str, Any]) -> Table:
    table = ui.columns("name", "kind", "from", "here", "about", "size", numbers=1)
    for source in result["sources"]:
        size = _size(source["size"]) if source["size"] else ""
        here = Text(str(source["here"] or ""), "green")
        host = urlsplit(source["address"]).hostname or source["address"]
        table.add_row(Text(source["name"], "bold"), source["kind"], host, here, Text(source["about"]), size)
    return table


def _result(result: Any) -> RenderableType:
    files = ui.columns("file", "holds", "rows", "size", numbers=2)
    for file in result.files:
        files.add_row(Text(file.path), file.holds, "" if file.rows is None else f"{file.rows:,}", _size(file.size))
    about = ui.names_and_values(**{"folder": result.folder, "from": result.address, "by": result.cite})
    notes = [Text(note, "dim") for note in result.notes]
    before = [] if result.done else [Text("it is here already: nothing to do")]
    after = [Text(command, "cyan") for command in result.next]
    return Group(*before, ui.panel(result.name, about, Text(""), files, *notes), Text("next"), *after)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
