"""One HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import statistics
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kdcli import __version__
from kdcli.api import Reporter
from kdcli.errors import DataError
from kdcli.files import atomic
from kdcli.report import comparison, run_page
from kdcli.report.collect import collect

NAME = "report.html"
CUT = 1000
"""Characters of a text from which on it is cut."""
_HERE = Path(__file__).parent
_MARK = b'<meta name="generator" content="kd '


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        output: The file.
        bytes: Its size.
        runs: The runs that it shows.
        sections: What is in it.
        left_out: What is not, since no run has come to it.
    """

    output: Path
    bytes: int
    runs: list[str]
    sections: list[str]
    left_out: list[str]


def write_report(
    runs: Sequence[str | Path], *, output: Path | None = None, force: bool = False, reporter: Reporter | None = None
) -> Report:
    """Write the page of a run, or one that puts several side by side.

    Args:
        runs: Run folders; a run may be half done.
        output: The file; by default ``report.html`` in the folder of one run, and here for several.
        force: Overwrite a file that is no such page. A page is made from the run alone, and so made again unasked.
        reporter: Shows the progress.

    Raises:
        DataError: A folder is no run's or a file in it is damaged; or another file stands at the output.
    """
    alone = len(runs) == 1
    path = output or (Path(runs[0]) / NAME if alone else Path(NAME))
    found = [collect(run, texts=alone, reporter=reporter) for run in runs]
    if path.exists() and not force and not _is_page(path):
        raise DataError("a file stands here that is no page of kd's", file=path, hint="--force overwrites it")
    contents = run_page.contents(found[0]) if alone else comparison.contents(found)
    page = _render("run.html" if alone else "comparison.html", contents)
    with atomic(path) as temporary:
        temporary.write_text(page, "utf-8")
    return Report(
        path,
        len(page.encode()),
        [str(run) for run in runs],
        [section.id for section in contents["sections"]],
        [section.id for section in contents["left_out"]],
    )


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _MARK in file.read(1024)


def _render(template: str, contents: dict[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "score": _score, "percent": _percent, "cut": _cut}
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return environment.get_template(template).render(
        **contents,
        version=__version__,
        written=datetime.now(UTC),
        # Ours, and so not escaped; of scripts the browser runs this one alone, by its hash.
        style=Markup(style),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        safe=Markup,
    )


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def _score(values: Sequence[float]) -> str:
    """Write the mean of the seeds' scores in percent, and their standard deviation where there are several."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _percent(value: float | None, digits: int = 1) -> str:
    return "—" if value is None else f"{100 * value:.{digits}f}\u00a0%"


def _cut(text: str) -> str:
    return text if len(text) <= CUT else f"{text[:CUT]}… ({len(text):,} characters)"
