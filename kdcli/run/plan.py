"""The steps of one launch: the stages that it asks for, laid out over the run folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdcli.errors import DataError, UsageError
from kdcli.run.context import Files, RunContext
from kdcli.run.lock import Lock, foreign, hashes, stale
from kdcli.run.stage import Stage
from kdcli.run.stages import STAGES, TRANSFER


@dataclass(frozen=True)
class Step:
    """A stage, and what it depends on in this run.

    Attributes:
        stage: The stage.
        run: Its run; of further students, with their seed.
        key: Its key in ``kd.lock``.
        parameters: The settings it depends on, by dotted key.
        inputs: The files and folders that it reads, by name.
        outputs: The files and folders that it makes, by name.
        alone: Whether it makes something outside the run folder, which then has no trace of it.
    """

    stage: Stage
    run: RunContext
    key: str
    parameters: Mapping[str, Any]
    inputs: Files
    outputs: Files
    alone: bool = False

    def reasons(self, lock: Lock, *, inputs: Mapping[str, str] | None = None, force: bool = False) -> list[str]:
        """Return why it has to run; nothing where it is up to date."""
        if self.alone:
            return ["asked for"]
        now = hashes(self.inputs) if inputs is None else inputs
        return ["--force"] if force else stale(lock.entry(self.key), self.parameters, now, self.outputs)


def plan(stages: Sequence[Stage], run: RunContext, outputs: Collection[str] = ()) -> list[Step]:
    """Lay stages out over a run; those of students once for each seed.

    Args:
        stages: The stages, in order.
        run: The run.
        outputs: The artefacts that are to lie outside the run folder.
    """
    steps = []
    for stage in stages:
        for own in run.each_seed() if stage.per_seed else [run]:
            made = stage.outputs(own)
            alone = not made.keys().isdisjoint(outputs)
            steps.append(
                Step(stage, own, stage.key(own), stage.parameters(own), stage.inputs(own), made, alone)
            )
    return steps


def select(stages: Sequence[Stage], first: str | None, until: str | None, only: str | None) -> list[Stage]:
    """Choose the stages that ``--from``, ``--until`` and ``--only`` name; ``transfer`` means all that make the set.

    Raises:
        UsageError: A name is not a stage's, or the choice is empty.
    """
    names = list(STAGES)
    for name in (first, until, only):
        if name is not None and name not in ("transfer", *names):
            hint = f"the stages are transfer (which is {', '.join(TRANSFER)}), {', '.join(names[len(TRANSFER) :])}"
            raise UsageError(f"there is no stage {name!r}", hint=hint)
    if only and (first or until):
        raise UsageError("--only goes without --from and --until")
    begin, end = only or first or names[0], only or until or names[-1]
    low = names.index(TRANSFER[0] if begin == "transfer" else begin)
    high = names.index(TRANSFER[-1] if end == "transfer" else end)
    chosen = [stage for stage in stages if low <= names.index(stage.name) <= high]
    if not chosen:
        order = ", ".join(stage.name for stage in stages)
        raise UsageError("no stage of this run is in that range", hint=f"in order: {order}")
    return chosen


def check(steps: Sequence[Step], lock: Lock, *, force: bool) -> None:
    """Fail fast: check that inputs exist, and that nothing would be overwritten that ``kd`` did not make.

    Raises:
        DataError: Names the first file that is missing or in the way.
    """
    coming: set[Path] = set()
    for step in steps:
        check_inputs(step, coming)
        if not force:
            check_outputs(step, lock)
        coming |= set(step.outputs.values())


def check_inputs(step: Step, coming: Collection[Path] = ()) -> None:
    """Check that the inputs exist, but for those that steps before make.

    Raises:
        DataError: Names the first missing input, and the command that makes it.
    """
    for name, path in step.inputs.items():
        if path not in coming and not path.exists():
            own = [] if name in step.run.elsewhere else STAGES.values()
            makers = (stage for stage in own if path in map(step.run.path, stage.makes))
            hint = next((f"`{stage.command}` makes it" for stage in makers), None)
            raise DataError(f"{step.stage.name} needs {name}, which does not exist", file=path, hint=hint)


def check_outputs(step: Step, lock: Lock) -> None:
    """Check that the outputs are the work of this step, unchanged, or do not exist.

    Raises:
        DataError: Names the first that is not.
    """
    for path in step.outputs.values() if step.alone else ():
        if path.exists():
            raise DataError("the output exists already", file=path, hint="--force overwrites it")
    found = None if step.alone else foreign(lock.entry(step.key), step.outputs)
    if found is not None:
        what = f"{step.key} did not make this, or it was changed since"
        raise DataError(what, file=found, hint="move it away to keep it; --force makes it again")


def would_run(steps: Sequence[Step], lock: Lock, *, force: bool) -> list[list[str]]:
    """Return for each step why it would run, as if those before it had."""
    every: list[list[str]] = []
    coming: set[Path] = set()
    for step in steps:
        entry = lock.entry(step.key)
        awaited = [name for name, path in step.inputs.items() if path in coming]
        inputs = hashes({name: path for name, path in step.inputs.items() if name not in awaited})
        if entry:
            inputs |= {name: entry.inputs.get(name, "") for name in awaited}
        reasons = step.reasons(lock, inputs=inputs, force=force)
        reasons += [f"input {name} will change" for name in awaited if entry]
        coming |= set(step.outputs.values()) if reasons else set()
        every.append(reasons)
    return every
