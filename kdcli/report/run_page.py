"""The page of one run: its sections, their tables and plots."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scipy.special import softmax

from kdcli.api import Task
from kdcli.evaluate.results import Results
from kdcli.report import plots
from kdcli.report.collect import Curve, RunContents
from kdcli.report.disagreements import MODELS, MOST, TablePredictions
from kdcli.report.transfer_set import SampledRow, TransferSet


@dataclass(frozen=True)
class Plot:
    """A plot and its caption."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor and its heading."""

    id: str
    title: str


SECTIONS = (
    Section("results", "Results"),
    Section("speed", "Speed"),
    Section("curves", "Learning curves"),
    Section("transfer", "Transfer set"),
    Section("samples", "Samples"),
    Section("confusion", "Predictions"),
    Section("disagreements", "Disagreements"),
    Section("profile", "Profile"),
    Section("provenance", "Provenance"),
)
"""The sections of a page of one run; speed is there after ``kd bench`` alone."""


def page_of(run: RunContents) -> dict[str, Any]:
    """Return the values of the template that shows a run; what the run does not have yet is left out."""
    results, transfer = run.results, run.transfer
    content = {
        **{"results": results, "speed": run.bench, "curves": run.curves, "transfer": transfer, "samples": transfer},
        **{"confusion": run.predictions, "disagreements": run.predictions, "profile": True, "provenance": run.stages},
    }
    disagreements = [(table.table, found) for table in run.predictions for found in table.disagreements]
    scores = [row.scores.values() for row in results.rows] if results else []
    return {
        "run": run,
        "sections": [section for section in SECTIONS if content[section.id]],
        "left_out": [section for section in SECTIONS if not content[section.id] and section.id != "speed"],
        "summary": summary(results) if results else "",
        "models": {row.model: row for row in results.rows} if results else {},
        "scored": scored(results) if results else [],
        "plots": {
            "results": [_tradeoff(results)] if results else [],
            "curves": list(_curves(run)),
            "transfer": list(_transfer(transfer, run.task)) if transfer else [],
            "confusion": [list(_scatters(table)) for table in run.predictions] if run.task.is_score else [],
        },
        "samples": [(sample, *_answer(sample, run.task)) for sample in transfer.samples] if transfer else [],
        "disagreements": sorted(disagreements, key=lambda pair: -pair[1].gap),
        "seeds": max((len(seeds) for tables in scores for metrics in tables for seeds in metrics.values()), default=1),
        "most": MOST,
        "MODELS": MODELS,
    }


def scored(results: Results) -> list[tuple[str, str]]:
    """Return the tables and metrics that were scored, in order."""
    return [(table, metric) for table, shares in results.gap_closed.items() for metric in shares]


def summary(results: Results) -> str:
    """Sum the results up in a sentence."""
    rows = {row.model: row for row in results.rows}
    table, metric = scored(results)[0]
    score = {model: 100 * statistics.fmean(row.scores[table][metric]) for model, row in rows.items()}
    share = results.gap_closed[table][metric]
    closed = "" if share is None else f": {100 * share:.0f}\u00a0% of the gap between the two is closed"
    faster = rows["student"].per_second / rows["teacher"].per_second
    smaller = rows["teacher"].parameters / rows["student"].parameters  # 0 if the teacher's are unknown
    fewer = f"{smaller:.1f} times fewer" if smaller >= 1 else f"{1 / (smaller or 1):.1f} times as many"
    size = f" and has {fewer} parameters" if smaller else ""
    return (
        f"The student reaches {score['student']:.1f} {metric} on {table}; its teacher reaches {score['teacher']:.1f}, "
        f"the same model trained on labels alone {score['baseline']:.1f}{closed}. "
        f"The student is {faster:.1f} times as fast as the teacher{size}."
    )


def _tradeoff(results: Results) -> Plot:
    table, metric = scored(results)[0]
    points = {row.model: (row.per_second, 100 * statistics.fmean(row.scores[table][metric])) for row in results.rows}
    svg = plots.tradeoff("tradeoff", points, y=f"{table} {metric}")
    return Plot(svg, f"Score against speed: {metric} on {table}, and texts a second, text in to logits out.")


def _curves(run: RunContents) -> Iterator[Plot]:
    metric = run.task.metric
    best = run.stages["teacher"].result.get("metrics", {}).get(metric) if "teacher" in run.stages else None
    levels = {} if best is None else {"teacher": (100 * best, plots.colour_of("teacher"))}
    by_stage = {name: [curve for curve in run.curves if curve.stage == name] for name in plots.COLOURS}
    for stage in ("teacher", "generator"):
        curves = by_stage[stage]
        yield from _losses(stage, curves)
        for name in dict.fromkeys(name for curve in curves for name in curve.metrics):
            readable = name.replace("_", " ")
            percent = name == metric  # as in the table
            several = len(curves) > 1
            drawn = [_line(curve, name, at, several=several, percent=percent) for at, curve in enumerate(curves)]
            yield Plot(plots.lines(f"{stage}-{name}", drawn, y=f"dev {readable}"), f"The {stage}'s {readable} on dev.")
    if small := [curve for curve in run.curves if curve.stage in ("student", "baseline") and metric in curve.values]:
        drawn = [_line(curve, metric, percent=True) for curve in small]
        stages = " and ".join(dict.fromkeys(curve.stage for curve in small)).capitalize()
        caption = f"{stages} on dev" + (", beside the teacher's best." if levels else ".")
        yield Plot(plots.lines(f"students-{metric}", drawn, y=f"dev {metric}", levels=levels), caption)
    for stage in ("student", "baseline"):
        yield from _losses(stage, by_stage[stage])


def _losses(stage: str, curves: list[Curve]) -> Iterator[Plot]:
    several = stage in ("teacher", "generator") and len(curves) > 1
    drawn = [
        _line(curve, name, number, several=several, of="dev" if name == "dev_loss" else "training")
        for number, curve in enumerate(curves)
        for name in ("loss", "dev_loss")
        if name in curve.values
    ]
    if curves:
        yield Plot(plots.lines(f"{stage}-loss", drawn, y="loss", log=True), f"The {stage}'s loss.")


def _line(
    curve: Curve, name: str, number: int = 0, *, several: bool = False, percent: bool = False, of: str = ""
) -> plots.Line:
    """Make a line of a curve: of several trainings each has its colour, else each stage has; seeds share one."""
    label = " ".join(word for word in (curve.label if several else "" if of else curve.stage, of) if word)
    colour = number if several else plots.colour_of(curve.stage)
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
        yield Plot(plots.balance("balance", found.sources, names), "The labels that the teacher gives, by source.")


def _scatters(table: TablePredictions) -> Iterator[Plot]:
    for model in MODELS:
        score, colour = table.logits[model][:, 0], plots.colour_of(model)
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
    probabilities = softmax(sample.logits).tolist()
    best = probabilities.index(max(probabilities))
    return (task.names or task.labels)[best], probabilities[best]
