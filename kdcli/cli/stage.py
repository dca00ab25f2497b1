"""What the commands of single stages share: they work in the run folder, or on files that the user named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from kdcli.cli import ui
from kdcli.errors import UsageError

if TYPE_CHECKING:
    from kdcli.api import Reporter
    from kdcli.config.load import Profile
    from kdcli.run.runner import Outcome
    from kdcli.run.stages import Plan

Describe = Callable[[dict[str, Any]], RenderableType]
"""Turns a stage's result into what is printed."""


@dataclass(frozen=True)
class Wish:
    """How a command is to run its stages; each field is the flag of that name."""

    run_dir: Path | None = None
    shard: str | None = None
    resume: str = "auto"
    force: bool = False
    dry_run: bool = False
    track: str | None = None


def run(
    names: Sequence[str],
    profile: Profile,
    wish: Wish,
    *,
    inputs: Mapping[str, Path | None] | None = None,
    outputs: Mapping[str, Path | None] | None = None,
    describe: Mapping[str, Describe],
) -> None:
    """Run stages of a profile and show the result of each.

    Args:
        names: The stages, in order.
        profile: The resolved profile.
        wish: The flags that all stages share.
        inputs: Artefacts to take from elsewhere than the run folder, by their name in ``Paths``.
        outputs: Artefacts to write elsewhere; the stages that write them leave no trace in the run folder.
        describe: How to print the results, by stage.
    """
    from kdcli.run.runner import refuse_existing, run_alone, run_stages

    elsewhere = {name: path for name, path in (outputs or {}).items() if path is not None}
    taken = {name: path for name, path in (inputs or {}).items() if path is not None}
    root = root_of(profile, wish.run_dir)
    with planned(profile, wish, in_run=len(elsewhere) < len(names), **taken, **elsewhere) as (plan, reporter):
        stages = [plan.stage(name) for name in names]
        alone = (
            [] if wish.dry_run else [stage for stage in stages if set(stage.outputs.values()) & set(elsewhere.values())]
        )
        for stage in [] if wish.force else alone:  # before those that it needs have taken hours
            refuse_existing(stage)
        inside = [stage for stage in stages if stage not in alone]
        outcomes = run_stages(inside, root, reporter=reporter, force=wish.force, dry_run=wish.dry_run)
        outcomes += [run_alone(stage, reporter=reporter, force=wish.force) for stage in alone]
    show(outcomes, wish.dry_run, {stage.key: describe[stage.name] for stage in stages if stage.name in describe})


def root_of(profile: Profile, run_dir: Path | None) -> Path:
    """Return the run folder: the one asked for, or ``runs/PROFILE``."""
    return run_dir or Path("runs") / profile.name


@contextmanager
def planned(profile: Profile, wish: Wish, *, in_run: bool = True, **places: Path) -> Iterator[tuple[Plan, Reporter]]:
    """Lay a profile out over its run folder, and hold the folder while stages run in it.

    Args:
        profile: The resolved profile.
        wish: The flags that all stages share.
        in_run: Whether the stages write to the run folder.
        places: Artefacts that lie elsewhere, by their name in ``Paths``.
    """
    from kdcli.files import atomic
    from kdcli.models.device import resolve
    from kdcli.parts.parts import Shard
    from kdcli.run.context import Ground
    from kdcli.run.run_dir import Paths, one_launch
    from kdcli.run.stages import Plan
    from kdcli.run.tracking import parse_trackers, tracking
    from kdcli.tasks.split import split_files

    _refuse_untrainable(profile)
    trackers = parse_trackers(wish.track)
    root, shard = root_of(profile, wish.run_dir), Shard.parse(wish.shard)
    train = split_files(profile.settings.task, "train") if profile.settings.task.data_dir else ()
    # A text of a JSONL or Parquet table may hold what a TSV cannot.
    any_text = bool(train) and any(suffix in (".jsonl", ".parquet") for suffix in train[0].suffixes)
    paths = replace(Paths.in_run(root, ".parquet" if any_text else ".tsv"), **places)
    ground = Ground(profile.settings, paths, resolve(profile.settings.device), shard, wish.resume == "auto")
    plan = Plan(ground)
    tracked = tracking(trackers, root, profile.name, ground.device, ui.warn)
    if wish.dry_run or not in_run:
        with tracked as track, ui.reporting(profile.name, track=track) as reporter:
            yield plan, reporter
        return
    metrics = root / "metrics.jsonl"
    with (
        one_launch(root, shard),
        tracked as track,
        ui.reporting(profile.name, metrics=metrics, track=track) as reporter,
    ):
        with atomic(root / "profile.toml") as temporary:
            temporary.write_text(profile.to_toml(), "utf-8")
        yield plan, reporter


def _refuse_untrainable(profile: Profile) -> None:
    """Refuse a task that has no training set of its own, such as GLUE's diagnostics.

    Raises:
        UsageError: Names the commands that predict it.
    """
    if other := profile.settings.task.student_of:
        what = f"{profile.name} has no training set: the student of {other} predicts it"
        predict = f"kd predict --student runs/{other}/student --profile {profile.name} --input FILE"
        raise UsageError(what, key="task.student_of", hint=f"kd run-all --profile {other}, then {predict}")


def show(outcomes: Sequence[Outcome], dry_run: bool, describe: Mapping[str, Describe]) -> None:
    """Show the results of the stages that can be described, or for a dry run what would run and why."""
    if dry_run:
        ui.show({"stages": outcomes}, lambda _: _reasons(outcomes))
    elif not outcomes[-1].done:
        ui.show({"stages": outcomes}, lambda _: Text("this share is done; other shards are still at work"))
    else:
        shown = [outcome for outcome in outcomes if outcome.stage in describe]
        parts = [part for outcome in shown for part in _described(outcome, describe)]
        ui.show({"stages": outcomes, "result": shown[-1].result}, lambda _: Group(*parts))


def panel(title: str, rows: Mapping[str, Any], *more: RenderableType) -> Panel:
    """Return a panel of names and values, with more things below them."""
    table = ui.columns("", "")
    table.show_header = False
    for name, value in rows.items():
        table.add_row(Text(name, "dim"), Text(value if isinstance(value, str) else f"{value:,}"))
    return Panel(Group(table, *more), title=title, title_align="left", expand=False)


def _described(outcome: Outcome, describe: Mapping[str, Describe]) -> Iterator[RenderableType]:
    yield describe[outcome.stage](outcome.result)
    yield Text(f"{outcome.seconds:.1f} s" if outcome.reasons else "up to date, nothing to do", "dim")


def _reasons(outcomes: Sequence[Outcome]) -> RenderableType:
    table = ui.columns("stage", "would run because")
    for outcome in outcomes:
        table.add_row(outcome.stage, Text("; ".join(outcome.reasons) or "up to date", "" if outcome.reasons else "dim"))
    return table
