"""The page of a run: one HTML file that loads nothing."""

import statistics
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kdcli import __version__
from kdcli.api import QuietReporter, Reporter, Task
from kdcli.errors import KdError
from kdcli.evaluate.results import Results, percent
from kdcli.files import check_output, write_text
from kdcli.report import plots
from kdcli.report.collect import Curve, RunContents, collect
from kdcli.report.texts import MOST, TablePredictions
from kdcli.run import artefact
from kdcli.student.explain import Explanation
from kdcli.student.student import load_student

NAME = "report.html"
CUT = 1000  # characters that are shown of a text
MOST_MASKED = 400_000  # words of all masked texts that a page is worth: some seconds of work
SECTIONS = {
    "results": "Results",
    "speed": "Speed",  # after ``kd bench`` alone
    "curves": "Learning curves",
    "transfer": "Transfer set",
    "samples": "Samples",
    "confusion": "Predictions",
    "disagreements": "Disagreements",
    "errors": "Shared errors",
    "profile": "Profile",
    "provenance": "Provenance",
}
"""The sections of a page."""
_DEFERRAL = "The student answers what it is sure of, and the teacher the rest: all texts, by the student's share."
_HERE = Path(__file__).parent
_MARK = b'<meta name="generator" content="kd '


class Plot(NamedTuple):
    """A plot and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Report:
    """A page on disk."""

    output: Path
    bytes: int
    run: str
    sections: list[str]
    left_out: list[str]  # sections that the run has not come to


def report_run(root: Path, *, new: bool, reporter: Reporter) -> Path | None:
    """Write the page of a run that has ended, if it has something ``new`` or no page; an error here is a warning."""
    page = root / NAME
    if new or not page.exists():
        try:
            write_report(root, reporter=reporter)
        except KdError as error:
            reporter.warn(f"there is no new report: {error}")
            return None
    return page


def write_report(
    run: str | Path, *, output: Path | None = None, force: bool = False, reporter: Reporter = QuietReporter()
) -> Report:
    """Write the page of a run, which may be half done, by default as ``report.html`` in its folder.

    A page of kd is replaced, and any other file with ``force``, else that is a ``DataError``; so is a folder that is no
    run's, or a damaged file in it.
    """
    path = output or Path(run) / NAME
    values = page_of(collect(run, reporter=reporter))
    mark_words(run, [text for _, text in values["disagreements"]], reporter)
    others = [part for part in Path(run).iterdir() if part.name != NAME]
    ours = path.is_file() and _MARK in path.read_bytes()[:1024]
    check_output(path, others, force=force, ours=ours)
    _write(path, "run.html", values)
    return Report(path, path.stat().st_size, str(run), list(values["sections"]), list(values["left_out"]))


def mark_words(run: str | Path, texts: Sequence[dict[str, Any]], reporter: Reporter) -> None:
    """Add to short texts what each word does to the student's answer: to the first ones, while it takes seconds."""
    folder = artefact(Path(run), "student")
    shown = [text for text in texts if max(map(len, text["texts"])) <= CUT]
    work = np.cumsum([sum(one.count(" ") + 1 for one in text["texts"]) ** 2 for text in shown])
    chosen = shown[: np.searchsorted(work, MOST_MASKED)]
    if not (chosen and folder.exists()):
        return
    try:
        student = load_student(folder)
        rows = [text["texts"][0] if student.task.kind == "single" else tuple(text["texts"]) for text in chosen]
        for text, found in zip(chosen, student.explain(rows, pairs=False), strict=True):
            text["marked"] = found.marked()
    except KdError as error:
        reporter.warn(f"the words of the disagreements are not coloured: {error}")


def write_explanations(found: Sequence[Explanation], task: Task, output: Path) -> None:
    """Write explanations as one HTML page that loads nothing."""
    _write(output, "explanations.html", {"found": found, "task": task})


def page_of(run: RunContents) -> dict[str, Any]:
    """Return the values of the template that shows a run; what the run does not have yet is left out."""
    results, transfer = run.results, run.transfer
    content = {
        **{"results": results, "speed": run.bench, "curves": run.curves, "profile": True, "provenance": run.stages},
        **dict.fromkeys(("transfer", "samples"), transfer),
        **dict.fromkeys(("confusion", "disagreements", "errors"), run.predictions),
    }
    texts = {}
    for kind in ("disagreements", "shared_errors"):
        every = ((table.table, text) for table in run.predictions for text in getattr(table, kind))
        texts[kind] = sorted(every, key=lambda pair: -pair[1]["size"])
    shown = results.rows if results else []
    scores = [row.scores.values() for row in shown]
    return {
        "run": run,
        "sections": {name: title for name, title in SECTIONS.items() if content[name]},
        "left_out": {name: title for name, title in SECTIONS.items() if not content[name] and name != "speed"},
        "models": {row.model: row for row in shown},
        "scored": results.scored if results else [],
        "plots": {
            "results": [_tradeoff(results)] if results else [],
            "deferral": [Plot(plots.deferral("deferral", run.calibration), _DEFERRAL)] if run.calibration else [],
            "curves": list(_curves(run)),
            "confusion": [list(_scatters(table)) for table in run.predictions] if run.task.is_score else [],
        },
        "samples": transfer.samples if transfer else [],
        **texts,
        "seeds": max((len(seeds) for tables in scores for metrics in tables for seeds in metrics.values()), default=1),
        "most": MOST,
        "fidelities": [(row.model, table, near) for row in shown for table, near in row.fidelity.items()],
    }


def _tradeoff(results: Results) -> Plot:
    table, metric = results.scored[0]
    points = {row.model: (row.per_second, 100 * statistics.fmean(row.scores[table][metric])) for row in results.rows}
    found = {row.model: row.intervals.get(table, {}).get(metric) for row in results.rows}
    ranges = {model: (100 * interval[0], 100 * interval[1]) for model, interval in found.items() if interval}
    svg = plots.tradeoff("tradeoff", points, y=f"{table} {metric}", ranges=ranges)
    sure = " The lines are the scores' 95\u00a0% intervals." if ranges else ""
    return Plot(svg, f"Score against speed: {metric} on {table}, and texts a second, text in to logits out.{sure}")


def _curves(run: RunContents) -> Iterator[Plot]:
    metric = run.task.metric
    best = run.stages["teacher"].result.get("metrics", {}).get(metric) if "teacher" in run.stages else None
    stages = ("teacher", "generator", "student", "baseline")
    by_stage = {stage: [curve for curve in run.curves if curve.stage == stage] for stage in stages}
    for stage, curves in by_stage.items():
        yield from _plot(f"{stage}-loss", curves, ["loss", "dev_loss"], f"The {stage}'s loss.", y="loss")
        if stage in ("teacher", "generator"):
            for name in dict.fromkeys(name for curve in curves for name in curve.metrics):
                title, times = name.replace("_", " "), 100 if name == metric else 1
                caption = f"The {stage}'s {title} on dev."
                yield from _plot(f"{stage}-{name}", curves, [name], caption, times=times, y=f"dev {title}")
        if any(len(set(curve.values.get("lr", []))) > 1 for curve in curves):  # a constant rate needs no plot
            caption = f"The {stage}'s learning rate: of each point, that of its last update."
            yield from _plot(f"{stage}-lr", curves, ["lr"], caption, y="learning rate")
    small = by_stage["student"] + by_stage["baseline"]
    caption = f"The {metric} on dev" + ("." if best is None else ", beside the teacher's best.")
    level = None if best is None else 100 * best
    yield from _plot(f"students-{metric}", small, [metric], caption, times=100, y=f"dev {metric}", teacher=level)


def _plot(name: str, curves: Sequence[Curve], quantities: Sequence[str], caption: str, **how: Any) -> Iterator[Plot]:
    if any(quantity in curve.values for curve in curves for quantity in quantities):
        yield Plot(plots.curves(name, curves, quantities, **how), caption)


def _scatters(table: TablePredictions) -> Iterator[Plot]:
    for model, logits in table.logits.items():
        score, colour = logits[:, 0], plots.colour_of(model)
        svg = plots.scatter(f"{table.table}-{model}", table.gold, score, labels=("gold", model), colour=colour)
        yield Plot(svg, f"The {model}'s scores on {table.table} against the gold ones.")
    both = table.logits["teacher"][:, 0], table.logits["student"][:, 0]
    svg = plots.scatter(f"{table.table}-both", *both, labels=("teacher", "student"), colour=4)
    yield Plot(svg, f"The student's scores on {table.table} against the teacher's.")


def _write(path: Path, template: str, values: dict[str, Any]) -> None:
    how: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(_HERE), **how)
    filters: dict[str, Callable[..., str]] = {
        "number": lambda value, digits=0: f"{value:,.{digits}f}",
        "score": percent,
        "percent": lambda value, digits=1: f"{100 * value:.{digits}f}\u00a0%",
        "cut": lambda text: text if len(text) <= CUT else f"{text[:CUT]}… ({len(text):,} characters)",
    }
    environment.filters |= filters
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    page = environment.get_template(template).render(
        **values,
        version=__version__,
        written=datetime.now(UTC),
        # Ours, and so not escaped; of scripts the browser runs this one alone, by its hash.
        style=Markup(style),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        safe=Markup,
    )
    write_text(path, page)
