"""The page of a run, or of several side by side: one HTML file that loads nothing."""

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
from kdcli.api import Reporter, Task
from kdcli.errors import KdError
from kdcli.evaluate.results import Results, percent
from kdcli.files import atomic, check_output
from kdcli.report import plots
from kdcli.report.collect import Curve, RunContents, collect
from kdcli.report.texts import MOST, SampledRow, TablePredictions, TransferSet
from kdcli.tasks.answers import answers, probabilities, written

NAME = "report.html"
CUT = 1000
"""Characters that are shown of a text."""
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
"""The sections of a page of one run."""
OF_SEVERAL = {
    "results": "Results",
    "curves": "Learning curves",
    "differences": "Settings that differ",
    "provenance": "Provenance",
}
"""The sections of a page of several runs."""
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
    runs: list[str]
    sections: list[str]
    left_out: list[str]  # sections that no run has come to


def report_run(root: Path, *, new: bool, reporter: Reporter) -> Path | None:
    """Write the page of a run that has ended, if it has something ``new`` or no page yet, and return its path.

    An error here is a warning, for the run itself is done.
    """
    page = root / NAME
    if new or not page.exists():
        try:
            write_report([root], reporter=reporter)
        except KdError as error:
            reporter.warn(f"there is no new report: {error}")
            return None
    return page


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
        path, len(page.encode()), [str(run) for run in runs], list(values["sections"]), list(values["left_out"])
    )


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
            key=lambda pair: -pair[1].size,
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
            "transfer": list(_transfer(transfer, run.task)) if transfer else [],
            "confusion": [list(_scatters(table)) for table in run.predictions] if run.task.is_score else [],
        },
        "samples": [(sample, *_answer(sample, run.task)) for sample in transfer.samples] if transfer else [],
        **texts,
        "seeds": max((len(seeds) for tables in scores for metrics in tables for seeds in metrics.values()), default=1),
        "most": MOST,
        "fidelities": [(row.model, table, near) for row in shown for table, near in row.fidelity.items()],
    }


def comparison_of(runs: Sequence[RunContents]) -> dict[str, Any]:
    """Return the values of the template that puts several runs side by side."""
    names = [run.name for run in runs]
    names = [name if names.count(name) == 1 else str(run.root) for name, run in zip(names, runs, strict=True)]
    by_name = dict(zip(names, runs, strict=True))
    curves = list(_curves_of_several(by_name))
    missing = {"results": not any(run.results for run in runs), "curves": not curves}
    settings = {key: [run.settings.get(key) for run in runs] for run in runs for key in run.settings}
    return {
        "runs": by_name,
        "sections": {name: title for name, title in OF_SEVERAL.items() if not missing.get(name)},
        "left_out": {name: title for name, title in OF_SEVERAL.items() if missing.get(name)},
        "without_results": [name for name, run in by_name.items() if not run.results],
        "scored": list(dict.fromkeys(pair for run in runs if run.results for pair in scored(run.results))),
        "differences": {key: found for key, found in settings.items() if any(value != found[0] for value in found)},
        "plots": {"curves": curves},
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
    by_stage = {name: [curve for curve in run.curves if curve.stage == name] for name in plots.COLOURS}
    for stage in ("teacher", "generator"):
        curves = by_stage[stage]
        yield from _losses(stage, curves)
        for name in dict.fromkeys(name for curve in curves for name in curve.metrics):
            drawn = [_line(curve, name, curves, percent=name == metric) for curve in curves]
            readable = name.replace("_", " ")
            yield Plot(plots.lines(f"{stage}-{name}", drawn, y=f"dev {readable}"), f"The {stage}'s {readable} on dev.")
    if small := [curve for curve in run.curves if curve.stage in ("student", "baseline") and metric in curve.values]:
        drawn = [_line(curve, metric, percent=True) for curve in small]
        stages = " and ".join(dict.fromkeys(curve.stage for curve in small)).capitalize()
        caption = f"{stages} on dev" + (", beside the teacher's best." if levels else ".")
        yield Plot(plots.lines(f"students-{metric}", drawn, y=f"dev {metric}", levels=levels), caption)
    for stage in ("student", "baseline"):
        yield from _losses(stage, by_stage[stage])
    for stage, curves in by_stage.items():
        if any(len(set(curve.values.get("lr", []))) > 1 for curve in curves):  # a constant rate needs no plot
            drawn = [_line(curve, "lr", curves) for curve in curves if "lr" in curve.values]
            caption = f"The {stage}'s learning rate: of each point, that of its last update."
            yield Plot(plots.lines(f"{stage}-lr", drawn, y="learning rate"), caption)


def _losses(stage: str, curves: list[Curve]) -> Iterator[Plot]:
    apart = curves if stage in ("teacher", "generator") else []
    drawn = [
        _line(curve, name, apart, of="dev" if name == "dev_loss" else "training")
        for curve in curves
        for name in ("loss", "dev_loss")
        if name in curve.values
    ]
    if curves:
        yield Plot(plots.lines(f"{stage}-loss", drawn, y="loss", log=True), f"The {stage}'s loss.")


def _line(curve: Curve, name: str, apart: Sequence[Curve] = (), *, percent: bool = False, of: str = "") -> plots.Line:
    """Make a line of a curve: each of several ``apart`` has its colour, else each stage has; seeds share one."""
    several = len(apart) > 1
    label = " ".join(word for word in (curve.label if several else "" if of else curve.stage, of) if word)
    colour = apart.index(curve) if several else plots.colour_of(curve.stage)
    values = [100 * value if percent and value is not None else value for value in curve.values[name]]
    return plots.Line(label, curve.steps, values, colour % len(plots.PALETTE), dashed=of == "dev")


def _transfer(found: TransferSet, task: Task) -> Iterator[Plot]:
    yield Plot(plots.lengths("lengths", found.sources), "Lengths: words between white space, both texts of a pair.")
    if not found.labelled:
        return
    if task.is_score:
        yield Plot(plots.score_shares("scores", found.sources), "The teacher's scores, by source.")
    else:
        names = task.names or task.labels
        caption = "The labels that the teacher gives, by source."
        if task.multi_label:
            caption += " A text may have several or none: the shares are of all labels given."
        yield Plot(plots.balance("balance", found.sources, names), caption)


def _scatters(table: TablePredictions) -> Iterator[Plot]:
    for model, logits in table.logits.items():
        score, colour = logits[:, 0], plots.colour_of(model)
        svg = plots.scatter(f"{table.table}-{model}", table.gold, score, labels=("gold", model), colour=colour)
        yield Plot(svg, f"The {model}'s scores on {table.table} against the gold ones.")
    both = table.logits["teacher"][:, 0], table.logits["student"][:, 0]
    svg = plots.scatter(f"{table.table}-both", *both, labels=("teacher", "student"), colour=4)
    yield Plot(svg, f"The student's scores on {table.table} against the teacher's.")


def _answer(sample: SampledRow, task: Task) -> tuple[str, float | None]:
    """Return the teacher's answer to a sample, and its probability: for scores the score itself."""
    if sample.logits is None:
        return "", None
    if task.is_score:
        return f"{sample.logits[0]:.3g}", sample.logits[0]
    logits = np.array([sample.logits])
    shares = probabilities(logits, task)[0]
    sure = np.maximum(shares, 1 - shares).min() if task.multi_label else shares.max()
    return written(answers(logits, task), task.names or task.labels)[0] or "none", float(sure)


def _curves_of_several(runs: dict[str, RunContents]) -> Iterator[Plot]:
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
