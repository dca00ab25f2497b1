"""``kd run-all``: from the task's tables to the results table."""

from __future__ import annotations

import os
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import stage, ui
from kdcli.cli.options import Request, command
from kdcli.cli.progress import duration
from kdcli.cli.results import deferral_lines, results_view
from kdcli.errors import UsageError


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
    from kdcli.report.page import report_run
    from kdcli.run.paths import artefact
    from kdcli.run.runner import run_stages

    if os.environ.get("WORLD_SIZE", "1") != "1":
        hint = "start single stages with torchrun, such as `teacher train` and `teacher export`"
        raise UsageError("run-all is one process, and not for torchrun", hint=hint)
    profile, options = request.load("demo"), request.run_options()
    root = options.root(profile)
    begin = time.monotonic()
    with ui.reporting(profile.name) as reporter:
        settings, part = profile.settings, options.dry_run or options.until or options.only
        if not (settings.teacher.train or part or artefact(root, "logits").exists()):
            from kdcli.models.device import resolve
            from kdcli.tasks.split import task_from
            from kdcli.teacher.model import TeacherSource

            # What is wrong with a teacher that is taken as it is shows before the texts are made.
            source, device = TeacherSource.of(settings), resolve(settings.device)
            source.load(task_from(settings.task), device=device, precision=settings.precision)
        outcomes = run_stages(None, profile, options=options, reporter=reporter)
        by_name = {} if request.dry_run else {outcome.name: outcome.result for outcome in outcomes}
        new = any(outcome.reasons for outcome in outcomes)
        page = report_run(root, new=new, reporter=reporter) if "results" in by_name else None
    ran = any(outcome.seconds for outcome in outcomes)
    ended = f"done in {duration(time.monotonic() - begin)}" if ran else "up to date, nothing to do"
    where = [Text(f"run folder: {root}"), *([Text(f"report: {page}")] if page else []), Text(ended, "dim")]

    def last(result: Any) -> RenderableType:
        if "results" not in by_name:
            return Group(ui.panel(outcomes[-1].name, ui.describe(result)), *where)
        calibrated = by_name.get("calibrate")
        return Group(results_view(by_name["results"]), *map(Text, deferral_lines(calibrated)), *where)

    stage.show(outcomes, request.dry_run, last)
