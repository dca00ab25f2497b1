"""The two streams: results on stdout (text, or one JSON object), everything else on stderr."""

import dataclasses
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import IO, Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from kdcli.cli.progress import Reporting, start_spinner, stop_spinner
from kdcli.errors import KdError, each


@dataclasses.dataclass
class Output:
    """The global flags."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    json: bool = False
    no_color: bool = False
    no_progress: bool = False


output = Output()
_stderr = Console(stderr=True)
_stdout: IO[str] | None = None


def configure(flags: Output) -> None:
    """Apply the global flags, to this process and those that it starts."""
    global output, _stderr
    output = flags
    if output.no_color:
        os.environ["NO_COLOR"] = "1"
    _stderr = Console(stderr=True, color_system=_color_system(), highlight=False, markup=False)
    warnings.showwarning = _show_warning


def show(result: object, view: Callable[[Any], RenderableType] | None = None) -> bool:
    """Print a result: with ``--json`` one object, else what ``view`` makes of it; False once the reader has gone."""
    if output.json:
        return write(json.dumps(plain(result), indent=2, allow_nan=False) + "\n")
    out = _stdout or sys.stdout
    how: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # a label may look like markup
    console = Console(file=out, color_system=_color_system(), safe_box=True, **how)
    if not out.isatty():  # there is no width to cut at
        console.width = max(console.width, 200)
    with console.capture() as captured:
        console.print((view or describe)(result))
    return write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def plain(value: Any) -> Any:
    """Turn a result into JSON values: NaN and infinity are null, a path is a string."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(
        value,
        inf_nan_mode="null",
        fallback=lambda one: one.tolist() if hasattr(one, "tolist") else str(one),  # NumPy's
    )


def describe(result: object) -> Group:
    """Lay out any result: names and values, and a table for each list of records."""
    rows = Table("", Column("", overflow="fold"), box=None, pad_edge=False, show_header=False)
    parts: list[RenderableType] = []
    for name, value in plain(result).items():
        _lay_out(name.replace("_", " "), value, rows, parts)
    return Group(*([rows] if rows.row_count else []), *parts)


def panel(title: str, *parts: RenderableType) -> Panel:
    """Return a panel as wide as its content."""
    return Panel(Group(*parts), title=Text(title), title_align="left", expand=False)


def records(rows: Sequence[Mapping[str, object]], *, numbers: bool = True) -> Table:
    """Return a table with a line for each record; with ``numbers`` all columns but the first are aligned right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    words = [word for row in rows for word in str(row.get(names[0]) or "").split()]
    widest = min(max(map(len, words), default=0), 30)  # of the names in the first column, which stay whole
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right" if numbers else "left", overflow="fold")
    first = table.columns[0] if names else Column()
    first.justify, first.min_width = "left", widest
    for row in rows:
        table.add_row(*(Text("" if row.get(name) is None else cell(row[name])) for name in names))
    return table


def columns(figures: Mapping[str, Mapping[str, object]], title: str = "") -> Table:
    """Return a table with a column for each of several things, and a line for each of their figures."""
    names = dict.fromkeys(name for found in figures.values() for name in found)
    return records([{title: name, **{thing: found.get(name) for thing, found in figures.items()}} for name in names])


def cell(value: object) -> str:
    """Write one value of a result."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def info(message: str) -> None:
    """Print a line on stderr, unless ``--quiet`` is given."""
    if not output.quiet:
        _say(message)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    _say(message, "warning", "yellow")


def fail(error: KdError, trace: BaseException | None = None) -> int:
    """Report an error, with ``--debug`` the traceback of ``trace``, with ``--json`` an object; return its exit code."""
    if output.debug and trace:
        _say("".join(traceback.format_exception(trace)).rstrip())
    for one in each(error):
        _say(_line(str(one)), "error", "bold red")
        if one.hint:
            _say(_line(one.hint), "hint", "cyan")
    if output.json:
        names = ("what", "file", "row", "key", "hint")
        single = [{"type": type(one).__name__, **{name: getattr(one, name) for name in names}} for one in each(error)]
        more = {"errors": single} if len(single) > 1 else {}
        write(json.dumps({"error": {**single[0], "exit_code": error.exit_code, **more}}, indent=2) + "\n")
    return error.exit_code


@contextmanager
def reporting(title: str) -> Iterator[Reporting]:
    """Yield the reporter of a command while it works.

    What libraries print to stdout meanwhile goes to stderr: stdout is for the result. Of the processes that
    ``torchrun`` starts, the first one reports.
    """
    global _stdout
    reporter = Reporting(
        title,
        say=info,
        warn=warn,
        # FORCE_COLOR asks for colours, not for a display that moves.
        console=_stderr if _moves() else None,
        quiet=output.quiet or os.environ.get("RANK", "0") != "0",
        interval=math.inf if output.no_progress else 5.0,
        verbose=output.verbose,
    )
    before, _stdout = _stdout, _stdout or sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield reporter
    finally:
        _stdout = before


def spin(title: str) -> None:
    """Show a spinner until the command shows something else: its imports take seconds."""
    if _moves() and not output.quiet and os.environ.get("RANK", "0") == "0":
        start_spinner(_stderr, title)


def write(text: str) -> bool:
    """Write to stdout; return False once the reader has gone (``kd ... | head``), which is no error."""
    stop_spinner()
    out = _stdout or sys.stdout
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return False
    return True


def _lay_out(name: str, value: Any, rows: Table, parts: list[RenderableType]) -> None:
    """Add a value to the rows, or a list to the parts below them."""
    if value is None or value in ("", [], {}):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            _lay_out(f"{name} {key}".replace("_", " "), item, rows, parts)
    elif isinstance(value, list) and isinstance(value[0], dict):
        parts += [*([Text()] if rows.row_count or parts else []), records(value, numbers=False)]
    elif isinstance(value, list) and len(cell(value)) > 60:
        parts += [Text(f"\n{name}"), *(Text(f"  {cell(item)}", "dim") for item in value)]
    else:
        rows.add_row(Text(name, "dim"), Text(cell(value)))


def _moves() -> bool:
    """Return whether stderr is a terminal on which a display may move."""
    dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
    return sys.stderr.isatty() and not dumb and not output.no_progress


def _color_system() -> Any:
    # Rich leaves bold and dim on under NO_COLOR; a log file wants no escape code at all.
    return None if output.no_color or os.environ.get("NO_COLOR") else "auto"


def _say(message: str, kind: str = "", style: str = "") -> None:
    stop_spinner()
    text = Text.assemble((f"{kind}: ", style), message) if kind else Text(message)
    _stderr.print(text, soft_wrap=True)


def _line(text: str) -> str:
    return " ".join(text.split())


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    where = f" ({filename}:{lineno})" if output.debug else ""
    warn(_line(str(message)) + where)
