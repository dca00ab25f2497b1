"""The results table of a run on the terminal: scores, nearness to the teacher, sizes, speed and cost."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui

if TYPE_CHECKING:
    from kdcli.evaluate.pair import CalibrationResult
    from kdcli.evaluate.results import Results, Row
    from kdcli.tasks.statistics import Interval


def results_view(result: Results, columns: Mapping[str, Mapping[str, str]] = MappingProxyType({})) -> RenderableType:
    """Show the comparison of all models; ``columns`` are further ones, by title and model."""
    scored = [(split, metric) for split, shares in result.gap_closed.items() for metric in shares]
    titles = {(split, metric): f"{split} {result.titles.get(metric, metric)}" for split, metric in scored}
    scores = [{"score": titles[pair], **{row.model: _score(row, *pair) for row in result.rows}} for pair in scored]
    near = [
        {"score": f"{split} {title}", **{row.model: _near(row, split, name) for row in result.rows}}
        for split in dict.fromkeys(split for split, _ in scored)
        for name, title in (("agreement", "agreement with the teacher"), ("kl", "KL, nats"), ("r2", "R2 of the logits"))
        if any(row.fidelity and getattr(row.fidelity[split], name) for row in result.rows)
    ]
    sizes = [
        {
            "model": row.model,
            "parameters": row.parameters or None,  # of a teacher that does not know
            "without embeddings": row.parameters_without_embeddings if row.parameters else None,
            "MB": f"{row.megabytes:.1f}" if row.megabytes else None,
            "texts/s": round(row.per_second) if row.per_second >= 10 else round(row.per_second, 2),
            **{title: values.get(row.model) for title, values in columns.items()},
        }
        for row in result.rows
    ]
    note = "scores x 100, with 95 % intervals of a bootstrap over the texts"
    # Without gold labels the scores are against the teacher's answers: its agreement says the same.
    rows = [*(scores if result.gold or not near else []), *near]
    parts: list[RenderableType] = [ui.records(rows), Text(note, "dim"), Text(""), ui.records(sizes)]
    if any(row.model == "baseline" for row in result.rows):
        shares = ", ".join(f"{titles[pair]} {_share(result, *pair)}" for pair in scored)
        parts += [Text(""), Text(f"share of the gap closed: {shares}")]
    return Group(*parts, *(Text(note, "yellow") for note in result.notes))


def deferral_lines(found: CalibrationResult | None) -> list[str]:
    """Say what the student answers itself for its target, and what that rests on."""
    if found is None:
        return []
    asked = f"an agreement of {found.agree:g} with the teacher"
    if found.texts < found.needed:
        return [f"{asked} needs {found.needed:,} calibration texts, and there are {found.texts:,}: all are deferred"]
    lines = [
        f"for {asked} the student answers {found.answered:.1%} of {found.texts:,} calibration texts",
        f"of new texts like these, it answers at most {found.bound:.2%} otherwise than the teacher (95 % confidence)",
        f"on texts that did not choose the threshold: {found.measured_answered:.1%} answered, agreement "
        f"{found.measured_agreement:.2%}; agreement is not accuracy",
    ]
    if found.accuracy is not None:
        lines.append(f"accuracy of the pair {found.accuracy:.1%}, of the teacher alone {found.teacher_accuracy:.1%}")
    return lines


def _score(row: Row, split: str, metric: str) -> str:
    from kdcli.evaluate.results import percent

    interval = row.intervals.get(split, {}).get(metric)  # a run of an earlier version has none
    sure = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return percent(row.scores[split][metric]) + sure


def _near(row: Row, split: str, name: str) -> str:
    found: Interval | None = getattr(row.fidelity.get(split), name, None)
    if found is None:
        return ""
    times, digits = (100, 1) if name == "agreement" else (1, 3)
    low, high = times * found.low, times * found.high
    return f"{times * found.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _share(result: Results, split: str, metric: str) -> str:
    share, interval = result.gap_closed[split][metric], result.gap_intervals.get(split, {}).get(metric)
    if share is None:
        return "not defined (these texts show no gap between teacher and baseline)"
    return f"{100 * share:.0f} %" + (f" ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})" if interval else "")
