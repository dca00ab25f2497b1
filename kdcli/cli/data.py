"""``kd data``: list and get tasks, word vectors and transfer sets; check the tables of a task."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import FILES, Request, command, option
from kdcli.errors import DataError

if TYPE_CHECKING:
    from kdcli.download.get import GetResult
    from kdcli.tasks.check_report import DataReport, Problem, TableReport

STYLES = {"error": "bold red", "warning": "yellow"}


def _complete(incomplete: str) -> list[str]:
    from kdcli.download.get import SOURCES

    return [source.name for source in SOURCES if source.name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of `kd data list`.", autocompletion=_complete)]
_URL = "Another source: a URL, a dataset of the Hub, or a file or folder of this machine."
Url = Annotated[str | None, option(FILES, "--url", _URL, "URL|DATASET|PATH")]


@command("kd data list")
def list_(request: Request) -> None:
    from kdcli.download.get import available

    ui.show({"sources": available()}, _sources)


@command(
    "kd data get sst2",
    "kd data get glove.840B.300d --output ~/vectors/glove",
    "kd data get rte -f",
    options=("output", "force", "offline"),
    about={"output": "Folder to write.|data/NAME", "offline": "Take it from this machine alone."},
)
def get(request: Request, *, name: Name, url: Url = None) -> None:
    """An interrupted download starts again from its beginning. Proxies are taken from HTTPS_PROXY and HTTP_PROXY."""
    from kdcli.download.get import get as run

    offline, force = request.offline, request.force
    with ui.reporting(f"data get {name}") as reporter:
        result = run(name, request.output, url=url, offline=offline, force=force, reporter=reporter)
    ui.show(result, _result)


def _sources(result: dict[str, Any]) -> RenderableType:
    rows = []
    for source in result["sources"]:
        shown = {"from": urlsplit(source["address"]).hostname or source["address"]}
        shown |= {"size": source["size"] and decimal(source["size"], precision=2)}
        rows.append({name: (source | shown)[name] for name in ("name", "kind", "from", "here", "about", "size")})
    return ui.records(rows, numbers=False)


def _result(result: "GetResult") -> RenderableType:
    files = [{**vars(file), "size": decimal(file.size)} for file in result.files]
    about = {"folder": result.folder, "from": result.address, "by": result.cite}
    before = [] if result.done else [Text("it is here already: nothing to do")]
    shown = ui.panel(result.name, ui.describe({**about, "files": files, "notes": result.notes}))
    return Group(*before, shown, Text("next"), *(Text(line, "cyan") for line in result.next))


@command(
    "kd data check --profile sst2 --data-dir data/SST-2",
    "kd data check --profile custom --data-dir data --text-col review --label-col stars",
    options=("profile", "task"),
    about={"profile": "|demo"},
)
def check(request: Request) -> None:
    """The exit code is 4 if the profile cannot run on them; all reasons are reported at once."""
    from kdcli.tasks.check import check_data
    from kdcli.tasks.split import task_from

    settings = request.load("demo", uses=()).settings
    with ui.reporting("kd data check") as reporter:
        report = check_data(settings.task, task_from(settings.task), reporter, max_words=settings.student.max_length)
    ui.show(report, _described)
    if not report.fit:
        raise typer.Exit(DataError.exit_code)


def _described(report: "DataReport") -> RenderableType:
    parts: list[RenderableType] = []
    if report.tables:
        files = {one.name: f"{one.file}: {one.layout}{'' if one.whole else '; read in part'}" for one in report.tables}
        figures = {table.name: _figures(table) for table in report.tables}
        parts.append(ui.panel(report.task, ui.describe(files), Text(), ui.columns(figures)))
    parts += [line for problem in report.problems for line in _problem(problem)]
    errors = len(report.errors)
    last = f"the profile cannot run on these tables: {errors} error{'s' * (errors > 1)}"
    parts.append(Text("the profile can run on these tables", "green") if report.fit else Text(last, STYLES["error"]))
    return Group(*parts)


def _figures(table: "TableReport") -> dict[str, object]:
    """Return what a table is like; what is odd about it stands among the problems."""
    figures: dict[str, object] = {"rows": table.rows}
    for one in table.labels.known if table.labels else ():
        name = f" ({one.name})" if one.name else ""
        figures[f"label {one.label}{name}"] = f"{one.count:,}  {one.share:6.1%}"
    if scores := table.scores:
        figures |= {"scores": f"{scores.min:g} to {scores.max:g}", "scores: mean": f"{scores.mean:.3g}"}
    for column, words in table.words.items():
        figures[f"{column}: words"] = f"{words.min:,} to {words.max:,}"
        figures[f"{column}: median, mean"] = f"{words.median:g}, {words.mean:.1f}"
        figures[f"{column}: 95 %, 99 % have at most"] = f"{words.p95:.0f}, {words.p99:.0f}"
    seldom = {
        "rows dropped for their labels": sum(table.dropped.values()),
        "rows with none of the labels": table.labels.none.count if table.labels else 0,
        "texts with white space at an end": table.edges.count,
    }
    return figures | {name: count for name, count in seldom.items() if count}


def _problem(problem: "Problem") -> Iterator[Text]:
    place = Path(problem.file).name if problem.file else problem.key or ""
    row = "" if problem.row is None else f", row {problem.row:,}"
    yield Text.assemble((problem.level, STYLES[problem.level]), f"  {place}  {problem.what}{row}")
    if problem.hint:
        yield Text(f"  hint: {problem.hint}", "cyan")
