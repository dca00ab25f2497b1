"""``kd run-all``: from the task's tables to the results table."""

from __future__ import annotations

import os
import statistics
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
    from kdcli.evaluate.results import Results
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
    rows = [
        {
            "model": row.model,
            **{
                f"{split} {result.titles.get(metric, metric)}": _score(row.scores[split][metric])
                for split, metric in scored
            },
            "parameters": row.parameters or None,  # of a teacher that does not know
            "without embeddings": row.parameters_without_embeddings if row.parameters else None,
            "MB": f"{row.megabytes:.1f}" if row.megabytes else None,
            "texts/s": round(row.per_second),
        }
        for row in result.rows
    ]
    shares = [
        f"{split} {result.titles.get(metric, metric)} {_share(result.gap_closed[split][metric])}"
        for split, metric in scored
    ]
    notes = [Text(note, "yellow") for note in result.notes]
    return Group(ui.records(rows), Text(""), Text(f"share of the gap closed: {', '.join(shares)}"), *notes)


def _score(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _share(value: float | None) -> str:
    return "n/a (the teacher is no better than the baseline)" if value is None else f"{100 * value:.0f} %"
