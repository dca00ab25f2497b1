"""``kd run-all``: from the task's tables to the results; and how it and the commands of single stages show these."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import Request, command
from kdcli.cli.progress import duration
from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.config.load import Profile
    from kdcli.evaluate.pair import CalibrationResult
    from kdcli.evaluate.results import Results, Row
    from kdcli.run.runner import Outcome
    from kdcli.tasks.statistics import Interval


@command(
    "kd run-all --profile sst2 --data-dir data/SST-2 --seeds 3",
    options=(
        *("profile", "task", "run_dir", "force", "seed", "device", "precision", "offline"),
        *("resume", "first", "until", "only", "seeds", "dry_run", "track", "engine"),
    ),
)
def run_all(request: Request) -> None:
    """Stages: transfer (lite, cache, fine-tune, prefixes, sample, corpus, mix), teacher, export, join, encode, student,
    baseline, results. What is up to date is not run again.
    """
    from kdcli.parts import process_count
    from kdcli.report.page import report_run
    from kdcli.run import artefact
    from kdcli.run.runner import run_stages

    if process_count() > 1:
        hint = "start a training with torchrun, such as `teacher train`; --engine ray shares the rest"
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
        return Group(results_view(by_name["results"]), *map(Text, deferral_lines(by_name.get("calibrate"))), *where)

    _show(outcomes, request.dry_run, last)


def show_stages(
    names: Sequence[str],
    request: Request,
    profile: Profile,
    *,
    inputs: Mapping[str, Path | None] | None = None,
    outputs: Mapping[str, Path | None] | None = None,
) -> None:
    """Run stages in order and show the result of each; ``inputs`` and ``outputs`` lie outside the run folder."""
    from kdcli.run.runner import run_stages

    options, more = request.run_options(), {"inputs": inputs or {}, "outputs": outputs or {}}
    with ui.reporting(profile.name) as reporter:
        outcomes = run_stages(names, profile, options=options, reporter=reporter, **more)
    _show(outcomes, request.dry_run)


def _show(outcomes: Sequence[Outcome], dry_run: bool, last: Callable[[Any], RenderableType] | None = None) -> None:
    """Show the results of stages (by ``last`` the last alone), or what would run; once under ``torchrun``."""
    from kdcli.parts import is_main_process

    if not is_main_process():
        return
    if dry_run:
        ui.show({"stages": outcomes}, lambda _: _reasons(outcomes))
        return
    result = outcomes[-1].result
    ui.show(
        {"stages": outcomes, "result": result},
        lambda _: last(result) if last else Group(*(part for outcome in outcomes for part in _panel(outcome))),
    )


def _panel(outcome: Outcome) -> tuple[RenderableType, Text]:
    from kdcli.run.stages import STAGES

    ended = f"{outcome.seconds:.1f} s" if outcome.reasons else "up to date, nothing to do"
    return ui.panel(STAGES[outcome.name].title(), ui.describe(outcome.result)), Text(ended, "dim")


def _reasons(outcomes: Sequence[Outcome]) -> RenderableType:
    reasons = [(outcome.stage, "; ".join(outcome.reasons) or "up to date") for outcome in outcomes]
    table = ui.records([{"stage": stage, "would run because": why} for stage, why in reasons], numbers=False)
    foreseen = [outcome for outcome in outcomes if outcome.result]
    panels = (ui.panel(f"{outcome.stage} would take about", ui.describe(outcome.result)) for outcome in foreseen)
    return Group(table, *panels)


def results_view(result: Results, more: Mapping[str, Mapping[str, str]] = MappingProxyType({})) -> RenderableType:
    """Show the comparison of all models; ``more`` are further figures, by title and model."""
    figures = {
        row.model: {**_figures(row, result), **{title: values.get(row.model) for title, values in more.items()}}
        for row in result.rows
    }
    note = "scores x 100, with 95 % intervals of a bootstrap over the texts"
    parts: list[RenderableType] = [ui.columns(figures, "model"), Text(note, "dim")]
    if any(row.model == "baseline" for row in result.rows):
        shares = ", ".join(f"{title} {_share(result, *pair)}" for pair, title in _scored(result).items())
        parts += [Text(""), Text(f"share of the gap closed: {shares}")]
    return Group(*parts, *(Text(note, "yellow") for note in result.notes))


def _scored(result: Results) -> dict[tuple[str, str], str]:
    return {(split, metric): f"{split} {result.titles.get(metric, metric)}" for split, metric in result.scored}


def _figures(row: Row, result: Results) -> dict[str, object]:
    scored = _scored(result)
    near = {
        f"{split} {title}": _near(row, split, name)
        for split in dict.fromkeys(split for split, _ in scored)
        for name, title in (("agreement", "agreement with the teacher"), ("kl", "KL, nats"), ("r2", "R2 of the logits"))
        if any(one.fidelity and getattr(one.fidelity[split], name) for one in result.rows)
    }
    # Without gold labels the scores are against the teacher's answers: its agreement says the same.
    scores = {title: _score(row, *pair) for pair, title in scored.items()} if result.gold or not near else {}
    return {
        **scores,
        **near,
        "parameters": row.parameters or None,  # of a teacher that does not know
        "without embeddings": row.parameters_without_embeddings if row.parameters else None,
        "MB": f"{row.megabytes:.1f}" if row.megabytes else None,
        "texts/s": round(row.per_second) if row.per_second >= 10 else round(row.per_second, 2),
    }


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
