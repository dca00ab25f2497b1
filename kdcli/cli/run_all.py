"""``kd run-all``: from the task's tables to the results table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import stage, ui
from kdcli.cli.options import Request, command
from kdcli.cli.progress import duration
from kdcli.errors import KdError, UsageError

if TYPE_CHECKING:
    from kdcli.api import Reporter
    from kdcli.evaluate.results import Results, Row
    from kdcli.run.runner import Outcome


@command(
    "kd run-all --profile sst2 --data-dir data/SST-2 --seeds 3",
    options=(
        *("profile", "task", "run_dir", "force", "seed", "device", "precision", "offline"),
        *("resume", "first", "until", "only", "seeds", "dry_run", "track"),
    ),
)
def run_all(request: Request) -> None:
    """Run all stages of a profile.

    Stages: transfer (lite, cache, fine-tune, prefixes, sample, corpus, mix), teacher, export, join, encode, student,
    baseline, results. What is up to date is not run again.
    """
    from kdcli.run.runner import run_stages

    if os.environ.get("WORLD_SIZE", "1") != "1":
        hint = "start single stages with torchrun, such as `teacher train` and `teacher export`"
        raise UsageError("run-all is one process, and not for torchrun", hint=hint)
    profile, options = request.load("demo"), request.run_options()
    root = options.root(profile)
    begin = time.monotonic()
    with ui.reporting(profile.name) as reporter:
        outcomes = run_stages(None, profile, options=options, reporter=reporter)
        compared = not request.dry_run and outcomes[-1].name == "results"
        page = _report(root, outcomes, reporter) if compared else None
    ran = any(outcome.seconds for outcome in outcomes)
    ended = f"done in {duration(time.monotonic() - begin)}" if ran else "up to date, nothing to do"
    where = [Text(f"run folder: {root}"), *([Text(f"report: {page}")] if page else []), Text(ended, "dim")]

    def last(result: Any) -> RenderableType:
        return Group(_results(result) if compared else ui.panel(outcomes[-1].name, ui.describe(result)), *where)

    stage.show(outcomes, request.dry_run, last)


def _report(root: Path, outcomes: Sequence[Outcome], reporter: Reporter) -> Path | None:
    """Write the run's page if something is new; an error here is a warning, for the run itself is done."""
    from kdcli.report.page import NAME, write_report

    page = root / NAME
    if any(outcome.reasons for outcome in outcomes) or not page.exists():
        try:
            write_report([root], reporter=reporter)
        except KdError as error:
            reporter.warn(f"there is no new report: {error}")
            return None
    return page


def _results(result: Results) -> RenderableType:
    scored = [(split, metric) for split, shares in result.gap_closed.items() for metric in shares]
    titles = {(split, metric): f"{split} {result.titles.get(metric, metric)}" for split, metric in scored}
    scores = [{"score": titles[pair], **{row.model: _score(row, *pair) for row in result.rows}} for pair in scored]
    sizes = [
        {
            "model": row.model,
            "parameters": row.parameters,
            "without embeddings": row.parameters_without_embeddings,
            "MB": f"{row.megabytes:.1f}",
            "texts/s": round(row.per_second),
        }
        for row in result.rows
    ]
    note = "scores x 100, with 95 % intervals of a bootstrap over the texts"
    shares = f"share of the gap closed: {', '.join(f'{titles[pair]} {_share(result, *pair)}' for pair in scored)}"
    notes = [Text(note, "yellow") for note in result.notes]
    return Group(ui.records(scores), Text(note, "dim"), Text(""), ui.records(sizes), Text(""), Text(shares), *notes)


def _score(row: Row, split: str, metric: str) -> str:
    from kdcli.evaluate.results import percent

    interval = row.intervals.get(split, {}).get(metric)  # a run of an earlier version has none
    sure = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return percent(row.scores[split][metric]) + sure


def _share(result: Results, split: str, metric: str) -> str:
    share, interval = result.gap_closed[split][metric], result.gap_intervals.get(split, {}).get(metric)
    if share is None:
        return "not defined (these texts show no gap between teacher and baseline)"
    return f"{100 * share:.0f} %" + (f" ({100 * interval[0]:.0f} to {100 * interval[1]:.0f})" if interval else "")
