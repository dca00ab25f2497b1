"""The two streams: results on stdout (a table, or one JSON object), everything else on stderr."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from kdcli.cli.reporting import Reporting
from kdcli.config.validation import each
from kdcli.errors import KdError

if TYPE_CHECKING:
    from kdcli.run.tracking import Track


@dataclasses.dataclass
class Wishes:
    """What the global flags ask for."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    json: bool = False
    no_color: bool = False
    no_progress: bool = False


wishes = Wishes()
_stderr = Console(stderr=True)
_stdout: IO[str] | None = None


def configure(asked: Wishes) -> None:
    """Take the global flags to heart, for this process and those that it starts."""
    global wishes, _stderr
    wishes = asked
    if wishes.no_color:
        os.environ["NO_COLOR"] = "1"
    _stderr = Console(stderr=True, color_system=_color_system(), highlight=False)
    warnings.showwarning = _show_warning


def show(result: object, table: Callable[[Any], RenderableType] | None = None) -> None:
    """Print a command's result: with ``--json`` one object, else a table or another thing that Rich prints.

    Args:
        result: A dataclass or a mapping.
        table: Makes what is printed without ``--json``; by default two columns, names and values.
    """
    if wishes.json:
        write(json.dumps(plain(result), indent=2, allow_nan=False) + "\n")
        return
    file = StringIO()
    out = _stdout or sys.stdout
    # Nothing is cut at the width of a terminal where there is none.
    seen = Console(file=out, color_system=_color_system())
    console = Console(
        file=file,
        force_terminal=seen.is_terminal,
        color_system=_color_system() and seen.color_system,  # type: ignore[arg-type]
        width=seen.width if out.isatty() else max(seen.width, 200),
        highlight=False,
        emoji=False,
        safe_box=True,
    )
    console.print((table or _names_and_values)(result))
    write("\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n")


def plain(value: Any) -> Any:
    """Turn a result into JSON values: a number that is none (NaN, infinite) is null, a path a string."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def columns(*names: str, numbers: int = 0) -> Table:
    """Return an empty table with these columns, the last ``numbers`` of them aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(names):
        right = place >= len(names) - numbers
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table


def info(message: str) -> None:
    """Say something on stderr, unless it is to be quiet."""
    if not wishes.quiet:
        _say(message)


def warn(message: str) -> None:
    """Warn on stderr."""
    _say(message, "warning", "yellow")


def fail(error: KdError, trace: BaseException | None = None) -> int:
    """Report an error: two lines on stderr, for each mistake; with ``--json`` also one object on stdout.

    Args:
        error: What the user is told.
        trace: What ``--debug`` shows the traceback of.

    Returns:
        The exit code.
    """
    if wishes.debug and trace:
        _say("".join(traceback.format_exception(trace)).rstrip())
    for one in each(error):
        _say(_line(str(one)), "error", "bold red")
        if one.hint:
            _say(_line(one.hint), "hint", "cyan")
    if wishes.json:
        described = [_described(one) for one in each(error)]
        more = {"mistakes": described} if len(described) > 1 else {}
        write(json.dumps({"error": {**described[0], "exit_code": error.exit_code, **more}}, indent=2) + "\n")
    return error.exit_code


@contextmanager
def reporting(title: str, *, metrics: Path | None = None, track: Track | None = None) -> Iterator[Reporting]:
    """Give the reporter of a command while it works.

    Whatever libraries print to stdout meanwhile goes to stderr: stdout is for the result. Of the processes that
    ``torchrun`` starts, the first one reports.

    Args:
        title: What stands above the progress.
        metrics: The JSON-lines file that learning curves are appended to.
        track: Sends them to trackers too.
    """
    global _stdout
    dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
    reporter = Reporting(
        title,
        say=info,
        warn=warn,
        # FORCE_COLOR asks for colours, not for a display that moves.
        console=_stderr if sys.stderr.isatty() and not dumb and not wishes.no_progress else None,
        quiet=wishes.quiet or os.environ.get("RANK", "0") != "0",
        interval=math.inf if wishes.no_progress else 5.0,
        verbose=wishes.verbose,
        metrics=metrics,
        track=track,
    )
    before, _stdout = _stdout, _stdout or sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield reporter
    finally:
        _stdout = before


def _color_system() -> Any:
    # Rich leaves bold and dim on under NO_COLOR; no escape code at all is what a log file wants.
    return None if wishes.no_color or os.environ.get("NO_COLOR") else "auto"


def _say(message: str, kind: str = "", style: str = "") -> None:
    text = Text.assemble((f"{kind}: ", style), message) if kind else Text(message)
    _stderr.print(text, soft_wrap=True)


def _line(text: str) -> str:
    return " ".join(text.split())


def _described(error: KdError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "what": error.what,
        "file": error.file,
        "row": error.row,
        "key": error.key,
        "hint": error.hint,
    }


def write(text: str) -> bool:
    """Write to stdout, and tell whether it is read: a reader that went away (``kd ... | head``) is no error."""
    out = _stdout or sys.stdout
    try:
        out.write(text)
        out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return False
    return True


def _names_and_values(result: object) -> Table:
    table = columns("", "")
    table.show_header = False
    for name, value in plain(result).items():
        table.add_row(name.replace("_", " "), Text(value if isinstance(value, str) else json.dumps(value)))
    return table


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    where = f" ({filename}:{lineno})" if wishes.debug else ""
    warn(_line(str(message)) + where)
