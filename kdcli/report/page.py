"""The page of a run: one HTML file that loads nothing."""

from __future__ import annotations

import statistics
from base64 import b64encode
from collections.abc import Iterator, Sequence
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
from kdcli.files import atomic, check_output
from kdcli.report import plots
from kdcli.report.collect import Curve, RunContents, collect
from kdcli.report.texts import MOST, TablePredictions
from kdcli.run.folder import artefact
from kdcli.student.explain import Explanation
from kdcli.student.student import load_student

NAME = "report.html"
CUT = 1000
"""Characters that are shown of a text."""
MOST_MASKED = 400_000
"""Words of all masked texts that a page is worth: some seconds of work."""
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
    """Write the page of a run that has ended, if it has something ``new`` or no page yet, and return its path.

    An error here is a warning, for the run itself is done.
    """
    page = root / NAME
    if new or not page.exists():
        try:
            write_report(root, reporter=reporter)
        except KdError as error:
            reporter.warn(f"there is no new report: {error}")
            return None
    return page


def write_report(
    run: str | Path, *, output: Path | None = None, force: bool = False, reporter: Reporter | None = None
) -> Report:
    """Write the page of a run, which may be half done.

    The default output is ``report.html`` in its folder. A page of kd is replaced, and any other file with ``force``.

    Raises:
        DataError: The folder is not a run's or a file in it is damaged; or the output is another file.
    """
    path = output or Path(run) / NAME
    values = page_of(collect(run, reporter=reporter))
    mark_words(run, [text for _, text in values["disagreements"]], reporter or QuietReporter())
    others = [part for part in Path(run).iterdir() if part.name != NAME]
    check_output(path, others, force=force, ours=_is_page(path))
    page = _render("run.html", values)
    with atomic(path) as temporary:
        temporary.write_text(page, "utf-8")
    return Report(path, len(page.encode()), str(run), list(values["sections"]), list(values["left_out"]))


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
    page = _render("explanations.html", {"found": found, "task": task})
    with atomic(output) as temporary:
        temporary.write_text(page, "utf-8")


def page_of(run: RunContents) -> dict[str, Any]:
    """Return the values of the template that shows a run; what the run does not have yet is left out."""
    results, transfer = run.results, run.transfer
    content = {
        **{"results": results, "speed": run.bench, "curves": run.curves, "profile": True, "provenance": run.stages},
        **dict.fromkeys(("transfer", "samples"), transfer),
        **dict.fromkeys(("confusion", "disagreements", "errors"), run.predictions),
    }
    texts = {
        kind: sorted(
            ((table.table, text) for table in run.predictions for text in getattr(table, kind)),
            key=lambda pair: -pair[1]["size"],
        )
        for kind in ("disagreements", "shared_errors")
    }
    shown = results.rows if results else []
    scores = [row.scores.values() for row in shown]
    return {
        "run": run,
        "sections": {name: title for name, title in SECTIONS.items() if content[name]},
        "left_out": {name: title for name, title in SECTIONS.items() if not content[name] and name != "speed"},
        "summary": summary(results) if results else "",
        "models": {row.model: row for row in shown},
        "scored": scored(results) if results else [],
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


def scored(results: Results) -> list[tuple[str, str]]:
    """Return the tables and metrics that were scored, in order."""
    return [(table, metric) for table, shares in results.gap_closed.items() for metric in shares]


def summary(results: Results) -> str:
    """Sum the results up in a sentence."""
    rows = {row.model: row for row in results.rows}
    table, metric = scored(results)[0]
    score = {model: 100 * statistics.fmean(row.scores[table][metric]) for model, row in rows.items()}
    faster = rows["student"].per_second / rows["teacher"].per_second
    fewer = ""
    if rows["teacher"].parameters:
        smaller = rows["teacher"].parameters / rows["student"].parameters
        times = f"{smaller:.1f} times fewer" if smaller >= 1 else f"{1 / smaller:.1f} times as many"
        fewer = f" and has {times} parameters"
    quick = f"The student is {faster:.1f} times as fast as the teacher{fewer}."
    if not results.gold:
        near = rows["student"].fidelity[table]
        figure = f"R2 of the scores {near.r2.value:.3f}"
        if near.agreement:
            low, high = 100 * near.agreement.low, 100 * near.agreement.high
            figure = f"{100 * near.agreement.value:.1f} % of the texts (95\u00a0% interval: {low:.1f} to {high:.1f})"
        return f"There are no gold labels. Student and teacher agree on {table}: {figure}. {quick}"
    share, interval = results.gap_closed[table][metric], results.gap_intervals.get(table, {}).get(metric)
    if share is None:
        closed = ". These texts do not show a gap between the two, so its share is not defined"
    else:
        sure = f" (95\u00a0% interval: {100 * interval[0]:.0f} to {100 * interval[1]:.0f})" if interval else ""
        closed = f": {100 * share:.0f}\u00a0% of the gap between the two is closed{sure}"
    title = results.titles.get(metric, metric)
    return (
        f"The student reaches {score['student']:.1f} {title} on {table}; its teacher reaches {score['teacher']:.1f}, "
        f"the same model trained on labels alone {score['baseline']:.1f}{closed}. "
        f"{quick}"
    )


def _tradeoff(results: Results) -> Plot:
    table, metric = scored(results)[0]
    points = {row.model: (row.per_second, 100 * statistics.fmean(row.scores[table][metric])) for row in results.rows}
    found = {row.model: row.intervals.get(table, {}).get(metric) for row in results.rows}
    ranges = {model: (100 * interval[0], 100 * interval[1]) for model, interval in found.items() if interval}
    svg = plots.tradeoff("tradeoff", points, y=f"{table} {metric}", ranges=ranges)
    sure = " The lines are the scores' 95\u00a0% intervals." if ranges else ""
    return Plot(svg, f"Score against speed: {metric} on {table}, and texts a second, text in to logits out.{sure}")


def _curves(run: RunContents) -> Iterator[Plot]:
    metric = run.task.metric
    best = run.stages["teacher"].result.get("metrics", {}).get(metric) if "teacher" in run.stages else None
    levels = {} if best is None else {"teacher": (100 * best, plots.colour_of("teacher"))}
    stages = ("teacher", "generator", "student", "baseline")
    by_stage = {stage: [curve for curve in run.curves if curve.stage == stage] for stage in stages}
    for stage, curves in by_stage.items():
        how: dict[str, Any] = {"y": "loss", "log": True}
        yield from _plot(f"{stage}-loss", curves, ["loss", "dev_loss"], f"The {stage}'s loss.", **how)
        if stage in ("teacher", "generator"):
            for name in dict.fromkeys(name for curve in curves for name in curve.metrics):
                title, percent = name.replace("_", " "), name == metric
                caption = f"The {stage}'s {title} on dev."
                yield from _plot(f"{stage}-{name}", curves, [name], caption, percent=percent, y=f"dev {title}")
        if any(len(set(curve.values.get("lr", []))) > 1 for curve in curves):  # a constant rate needs no plot
            caption = f"The {stage}'s learning rate: of each point, that of its last update."
            yield from _plot(f"{stage}-lr", curves, ["lr"], caption, y="learning rate")
    small = by_stage["student"] + by_stage["baseline"]
    caption = f"The {metric} on dev" + (", beside the teacher's best." if levels else ".")
    yield from _plot(f"students-{metric}", small, [metric], caption, percent=True, y=f"dev {metric}", levels=levels)


def _plot(
    name: str, curves: Sequence[Curve], quantities: Sequence[str], caption: str, *, percent: bool = False, **how: Any
) -> Iterator[Plot]:
    """Draw quantities of curves, if there are any; each curve of a grid has its own colour, else each stage has."""
    drawn = []
    for number, curve in enumerate(curves):
        grid = curve.label.startswith("lr ")
        colour = number % len(plots.PALETTE) if grid else plots.colour_of(curve.stage)
        for quantity in (one for one in quantities if one in curve.values):
            of = {"loss": "training", "dev_loss": "dev"}.get(quantity, "")
            label = " ".join(filter(None, [curve.label if grid else "" if of else curve.stage, of]))
            values = [100 * value if percent and value is not None else value for value in curve.values[quantity]]
            drawn.append(plots.Line(label, curve.steps, values, colour, dashed=quantity == "dev_loss"))
    if drawn:
        yield Plot(plots.lines(name, drawn, **how), caption)


def _scatters(table: TablePredictions) -> Iterator[Plot]:
    for model, logits in table.logits.items():
        score, colour = logits[:, 0], plots.colour_of(model)
        svg = plots.scatter(f"{table.table}-{model}", table.gold, score, labels=("gold", model), colour=colour)
        yield Plot(svg, f"The {model}'s scores on {table.table} against the gold ones.")
    both = table.logits["teacher"][:, 0], table.logits["student"][:, 0]
    svg = plots.scatter(f"{table.table}-both", *both, labels=("teacher", "student"), colour=4)
    yield Plot(svg, f"The student's scores on {table.table} against the teacher's.")


def _is_page(path: Path) -> bool:
    return path.is_file() and _MARK in path.read_bytes()[:1024]


def _render(template: str, values: dict[str, Any]) -> str:
    how: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(_HERE), **how)
    environment.filters |= {
        "number": lambda value, digits=0: f"{value:,.{digits}f}",
        "score": percent,
        "percent": _percent,
        "cut": _cut,
    }
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


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}\u00a0%"


def _cut(text: str) -> str:
    return text if len(text) <= CUT else f"{text[:CUT]}… ({len(text):,} characters)"
