"""``kd run-all``: from the task's tables to the results table."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import flags, stage, ui
from kdcli.errors import KdError, UsageError

if TYPE_CHECKING:
    from kdcli.api import Reporter
    from kdcli.run.runner import Outcome

app = typer.Typer()


@app.command("run-all", epilog=flags.example("kd run-all --profile sst2 --data-dir data/SST-2 --seeds 3"))
def run_all(
    profile: flags.ProfileName = None,
    set_: flags.Set = None,
    data_dir: flags.DataDir = None,
    text_col: flags.TextCol = None,
    text2_col: flags.Text2Col = None,
    label_col: flags.LabelCol = None,
    run_dir: flags.RunDir = None,
    force: flags.Force = False,
    seed: flags.Seed = None,
    seeds: flags.Seeds = 1,
    device: flags.Device = None,
    precision: flags.Precision = None,
    shard: flags.ShardOf = None,
    offline: flags.Offline = False,
    resume: flags.Resume = "auto",
    from_: flags.From = None,
    until: flags.Until = None,
    only: flags.Only = None,
    dry_run: flags.DryRun = False,
    track: flags.Track = None,
) -> None:
    """Make the transfer set, train the teacher, export, join, distil, train the baseline, compare, report.

    Stages: transfer (lite, cache, fine-tune, prefixes, sample, corpus, mix), teacher, export, join, encode, student,
    baseline, results. What is up to date is not run again.
    With --shard, several launches share the parts of the transfer set and of the logits, and the seeds.
    """
    from kdcli.run.runner import run_stages, select

    if shard is None and os.environ.get("WORLD_SIZE", "1") != "1":
        hint = "give torchrun the stages that gain by it, such as `teacher train` and `teacher export`"
        raise UsageError("run-all is one process", hint=hint)
    tables = flags.tables(data_dir, text_col, text2_col, label_col)
    values = {**tables, "seed": seed, "device": device, "precision": precision}
    chosen = flags.load(profile, set_, values, default="demo")
    wish = stage.Wish(run_dir, shard, resume, force, dry_run, track)
    root = stage.root_of(chosen, run_dir)
    with stage.planned(chosen, wish) as (plan, reporter):
        stages = select(plan.share(seeds), from_, until, only)
        outcomes = run_stages(stages, root, reporter=reporter, force=force, dry_run=dry_run)
        compared = stages[-1].name == "results" and not dry_run and outcomes[-1].done
        page = _report(root, outcomes, reporter) if compared else None
    described = _results if stages[-1].name == "results" else _done
    where = [Text(f"run folder: {root}"), *([Text(f"report: {page}")] if page else [])]
    last = {stages[-1].key: lambda result: Group(described(result), *where)}
    stage.show(outcomes, dry_run, last)


def _report(root: Path, outcomes: Sequence[Outcome], reporter: Reporter) -> Path | None:
    """Write the run's page where something is new; whatever is in its way does not spoil the run."""
    from kdcli.report.page import NAME, write_report

    page = root / NAME
    if any(outcome.reasons for outcome in outcomes) or not page.exists():
        try:
            write_report([root], reporter=reporter)
        except KdError as error:
            reporter.warn(f"there is no new report: {error}")
            return None
    return page


def _done(result: dict[str, Any]) -> RenderableType:
    shown = {name.replace("_", " "): value for name, value in result.items() if isinstance(value, int | str)}
    return stage.panel("done", shown)


def _results(result: dict[str, Any]) -> RenderableType:
    scored = [(split, metric) for split, shares in result["gap_closed"].items() for metric in shares]
    sizes = ["parameters", "without embeddings", "MB", "texts/s"]
    table = ui.columns("model", *(f"{split} {metric}" for split, metric in scored), *sizes, numbers=len(scored) + 4)
    for row in result["rows"]:
        sizes = [f"{row['parameters']:,}", f"{row['parameters_without_embeddings']:,}", f"{row['megabytes']:.1f}"]
        scores = [_score(row["scores"][split][metric]) for split, metric in scored]
        table.add_row(Text(row["model"], "bold"), *scores, *sizes, f"{row['per_second']:,.0f}")
    shares = [f"{split} {metric} {_share(result['gap_closed'][split][metric])}" for split, metric in scored]
    return Group(table, Text(""), Text(f"share of the gap closed: {', '.join(shares)}"))


def _score(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def _share(value: float | None) -> str:
    return "n/a (the teacher is no better than the baseline)" if value is None else f"{100 * value:.0f} %"
