"""Run stages and show their results: what the commands of single stages and ``run-all`` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from kdcli.cli import ui
from kdcli.cli.options import Request

if TYPE_CHECKING:
    from kdcli.config.load import Profile
    from kdcli.run.runner import Outcome


def run(
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
    show(outcomes, request.dry_run)


def show(outcomes: Sequence[Outcome], dry_run: bool, last: Callable[[Any], RenderableType] | None = None) -> None:
    """Show the results of stages (by ``last`` the last alone), or for a dry run what would run and why.

    Of the processes that ``torchrun`` starts, the main one shows them.
    """
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
