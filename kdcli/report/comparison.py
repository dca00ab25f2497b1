"""The page of several runs, side by side: results, curves, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kdcli.report import plots
from kdcli.report.collect import Run
from kdcli.report.predictions import MODELS
from kdcli.report.run_page import Plot, Section, scored

SECTIONS = (
    Section("results", "Results"),
    Section("curves", "Learning curves"),
    Section("differences", "Settings that differ"),
    Section("provenance", "Provenance"),
)


def contents(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the template needs to show several runs."""
    names = _names(runs)
    by_name = dict(zip(names, runs, strict=True))
    drawn = list(_curves(by_name))
    there = {"results": any(run.results for run in runs), "curves": bool(drawn)}
    return {
        "runs": by_name,
        "sections": [section for section in SECTIONS if there.get(section.id, True)],
        "left_out": [section for section in SECTIONS if not there.get(section.id, True)],
        "without_results": [name for name, run in by_name.items() if not run.results],
        "scored": list(dict.fromkeys(pair for run in runs if run.results for pair in scored(run.results))),
        "differences": _differences(runs),
        "plots": {"curves": drawn},
        "MODELS": MODELS,
    }


def _names(runs: Sequence[Run]) -> list[str]:
    """Name runs by their folders; folders of one name by their paths."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.root) for name, run in zip(names, runs, strict=True)]


def _differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all runs: a value for each run, None where it has none."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _curves(runs: dict[str, Run]) -> Iterator[Plot]:
    """Draw the dev scores of all students together, those of tasks with different metrics apart; so the baselines'."""
    for metric in dict.fromkeys(run.task.metric for run in runs.values()):
        for stage in ("student", "baseline"):
            drawn = [
                plots.Line(name, curve.steps, _percent(curve.values[metric]), number % len(plots.PALETTE))
                for number, (name, run) in enumerate(runs.items())
                for curve in run.curves
                if curve.stage == stage and run.task.metric == metric and metric in curve.values
            ]
            if drawn:
                svg = plots.lines(f"{stage}-{metric}", drawn, y=f"dev {metric}")
                yield Plot(svg, f"The {stage}s' {metric} on dev.")


def _percent(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else 100 * value for value in values]
