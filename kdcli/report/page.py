"""The page of a run, or of several side by side: one HTML file that loads nothing."""

from __future__ import annotations

import statistics
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kdcli import __version__
from kdcli.api import Reporter
from kdcli.evaluate.results import MODELS
from kdcli.files import atomic, check_output
from kdcli.report import plots
from kdcli.report.collect import RunContents, collect
from kdcli.report.run_page import Plot, Section, page_of, scored

NAME = "report.html"
CUT = 1000
"""Characters that are shown of a text."""
SECTIONS = (
    Section("results", "Results"),
    Section("curves", "Learning curves"),
    Section("differences", "Settings that differ"),
    Section("provenance", "Provenance"),
)
"""The sections of a page of several runs."""
_HERE = Path(__file__).parent
_MARK = b'<meta name="generator" content="kd '


@dataclass(frozen=True)
class Report:
    """A page on disk."""

    output: Path
    bytes: int
    runs: list[str]
    sections: list[str]
    left_out: list[str]  # sections that no run has come to


def write_report(
    runs: Sequence[str | Path], *, output: Path | None = None, force: bool = False, reporter: Reporter | None = None
) -> Report:
    """Write the page of a run, or one that puts several side by side; a run may be half done.

    The default output is ``report.html``, in the folder of one run, and here for several. A page of kd is replaced, and
    any other file with ``force``.

    Raises:
        DataError: A folder is not a run's or a file in it is damaged; or the output is another file.
    """
    alone = len(runs) == 1
    path = output or (Path(runs[0]) / NAME if alone else Path(NAME))
    found = [collect(run, texts=alone, reporter=reporter) for run in runs]
    parts = [part for run in runs for part in Path(run).iterdir() if part.name != NAME]
    check_output(path, parts, force=force, ours=_is_page(path))
    values = page_of(found[0]) if alone else comparison_of(found)
    page = _render("run.html" if alone else "comparison.html", values)
    with atomic(path) as temporary:
        temporary.write_text(page, "utf-8")
    return Report(
        path,
        len(page.encode()),
        [str(run) for run in runs],
        [section.id for section in values["sections"]],
        [section.id for section in values["left_out"]],
    )


def comparison_of(runs: Sequence[RunContents]) -> dict[str, Any]:
    """Return the values of the template that puts several runs side by side."""
    names = [run.name for run in runs]
    names = [name if names.count(name) == 1 else str(run.root) for name, run in zip(names, runs, strict=True)]
    by_name = dict(zip(names, runs, strict=True))
    curves = list(_curves(by_name))
    there = {"results": any(run.results for run in runs), "curves": bool(curves)}
    settings = {key: [run.settings.get(key) for run in runs] for run in runs for key in run.settings}
    return {
        "runs": by_name,
        "sections": [section for section in SECTIONS if there.get(section.id, True)],
        "left_out": [section for section in SECTIONS if not there.get(section.id, True)],
        "without_results": [name for name, run in by_name.items() if not run.results],
        "scored": list(dict.fromkeys(pair for run in runs if run.results for pair in scored(run.results))),
        "differences": {key: found for key, found in settings.items() if any(value != found[0] for value in found)},
        "plots": {"curves": curves},
        "MODELS": MODELS,
    }


def _curves(runs: dict[str, RunContents]) -> Iterator[Plot]:
    """Draw the dev scores of all students together, those of tasks with different metrics apart; so the baselines'."""
    for metric in dict.fromkeys(run.task.metric for run in runs.values()):
        for stage in ("student", "baseline"):
            drawn = [
                plots.Line(name, curve.steps, [value and 100 * value for value in curve.values[metric]], number % 6)
                for number, (name, run) in enumerate(runs.items())
                for curve in run.curves
                if curve.stage == stage and run.task.metric == metric and metric in curve.values
            ]
            if drawn:
                svg = plots.lines(f"{stage}-{metric}", drawn, y=f"dev {metric}")
                yield Plot(svg, f"The {stage}s' {metric} on dev.")


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _MARK in file.read(1024)


def _render(template: str, values: dict[str, Any]) -> str:
    files = FileSystemLoader(_HERE)
    environment = Environment(
        loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "score": _score, "percent": _percent, "cut": _cut}
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return environment.get_template(template).render(
        **values,
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
