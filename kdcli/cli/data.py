"""``kd data``: list and get tasks, word vectors and transfer sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.data_check import check
from kdcli.cli.options import FILES, Request, command, option

if TYPE_CHECKING:
    from kdcli.download.get import GetResult

__all__ = ["check", "get", "list_"]


def _complete(incomplete: str) -> list[str]:
    from kdcli.download.sources import SOURCES

    return [source.name for source in SOURCES if source.name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of `kd data list`.", autocompletion=_complete)]
Url = Annotated[
    str | None,
    option(
        *(FILES, "--url", "Take it from here: a URL, a dataset of the Hub, or a file or folder of this machine."),
        *("URL|DATASET|PATH", "sources.NAME of the profile"),
    ),
]
Sha256 = Annotated[str | None, option(FILES, "--sha256", "Expected SHA-256 of the file.", "HEX")]


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

    The default output is data/NAME. A download that breaks off starts again. Proxies are taken from HTTPS_PROXY and
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


def _sources(result: dict[str, Any]) -> RenderableType:
    rows = [
        {
            **{name: source[name] for name in ("name", "kind")},
            "from": urlsplit(source["address"]).hostname or source["address"],
            **{name: source[name] for name in ("here", "about")},
            "size": source["size"] and _size(source["size"]),
        }
        for source in result["sources"]
    ]
    return ui.records(rows, numbers=False)


def _result(result: GetResult) -> RenderableType:
    files = [{**vars(file), "size": _size(file.size)} for file in result.files]
    about = {"folder": result.folder, "from": result.address, "by": result.cite}
    before = [] if result.done else [Text("it is here already: nothing to do")]
    shown = ui.panel(result.name, ui.describe({**about, "files": files, "notes": result.notes}))
    return Group(*before, shown, Text("next"), *(Text(line, "cyan") for line in result.next))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
