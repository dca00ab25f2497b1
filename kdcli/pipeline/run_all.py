"""Run the stages of a plan in order, each only where it is not up to date."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kdcli.api import Reporter
from kdcli.errors import DataError, UsageError
from kdcli.pipeline.lock import Entry, Lock, hashes, stale, touched, versions
from kdcli.pipeline.stages import NAMES, Stage

_MAKERS = {
    "transfer": "kd transfer lite",
    "teacher": "kd teacher train",
    "logits": "kd teacher export",
    "joined": "kd join",
    "encoded": "kd student",
    "student": "kd student",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a stage.

    Attributes:
        stage: Its key in ``kd.lock``.
        reasons: Why it ran (or would run); empty where it was up to date.
        result: What it found out, now or when it last ran; empty where it did not end here.
        seconds: How long it took, 0.0 where it did not run.
        done: Whether its outputs are there and up to date now.
    """

    stage: str
    reasons: list[str]
    result: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    done: bool = True


def select(stages: Sequence[Stage], first: str | None, until: str | None, only: str | None) -> list[Stage]:
    """Choose the stages that ``--from``, ``--until`` and ``--only`` name.

    Raises:
        UsageError: A name is no stage, or the choice is empty.
    """
    for name in (first, until, only):
        if name is not None and name not in NAMES:
            raise UsageError(f"there is no stage {name!r}", hint=f"the stages are {', '.join(NAMES)}")
    if only and (first or until):
        raise UsageError("--only goes without --from and --until")
    low = NAMES.index(only or first or NAMES[0])
    high = NAMES.index(only or until or NAMES[-1])
    chosen = [stage for stage in stages if low <= NAMES.index(stage.name) <= high]
    if not chosen:
        raise UsageError("no stage of this run is in that range", hint=f"in order: {', '.join(s.key for s in stages)}")
    return chosen


def run_stages(
    stages: Sequence[Stage], root: Path, *, reporter: Reporter, force: bool = False, dry_run: bool = False
) -> list[Outcome]:
    """Run each stage that is not up to date, say why, and write down in ``kd.lock`` how it was made.

    Args:
        stages: The stages, in order.
        root: The run folder.
        reporter: Told of each stage.
        force: Run all of them, and overwrite outputs that were changed by hand.
        dry_run: Only say what would run, and why.

    Raises:
        DataError: An input is missing, or an output stands there that ``kd`` did not make.
    """
    lock = Lock(root)
    outcomes: list[Outcome] = []
    coming: set[Path] = set()
    for stage in stages:
        entry = lock.entry(stage.key)
        awaited = {name for name, path in stage.inputs.items() if path in coming}
        inputs = hashes({name: path for name, path in stage.inputs.items() if name not in awaited})
        if entry:
            inputs |= {name: entry.inputs.get(name, "") for name in awaited}
        reasons = ["--force"] if force else stale(entry, stage.parameters, inputs, stage.outputs)
        if dry_run:
            reasons += [f"input {name} will change" for name in stage.inputs if name in awaited and entry]
            coming |= set(stage.outputs.values()) if reasons else set()
            outcomes.append(Outcome(stage.key, reasons, done=not reasons))
        elif reasons:
            outcomes.append(_run(stage, lock, reasons, force, reporter))
            if not outcomes[-1].done:
                break
        else:
            _refuse_touched(stage, entry)
            outcomes.append(Outcome(stage.key, [], entry.result if entry else {}))
    return outcomes


def run_alone(stage: Stage, *, reporter: Reporter, force: bool = False) -> Outcome:
    """Run one stage outside a run folder, to outputs that the user named.

    Raises:
        DataError: An input is missing, or an output exists and ``force`` is not given.
    """
    _need(stage)
    for path in stage.outputs.values():
        if path.exists() and not force:
            raise DataError("the output exists already", file=path, hint="--force overwrites it")
    begin = time.perf_counter()
    result = stage.run(reporter)
    seconds = time.perf_counter() - begin
    return Outcome(stage.key, ["asked for"], asdict(result) if result else {}, seconds, done=result is not None)


def _run(stage: Stage, lock: Lock, reasons: list[str], force: bool, reporter: Reporter) -> Outcome:
    _need(stage)
    if not force:
        _refuse_touched(stage, lock.entry(stage.key))
    for reason in reasons:
        reporter.info(f"{stage.key}: {reason}")
    started = Entry(dict(stage.parameters), hashes(stage.inputs))
    lock.record(stage.key, started)
    begin = time.perf_counter()
    result = stage.run(reporter)
    seconds = time.perf_counter() - begin
    if result is None:
        reporter.info(f"{stage.key}: this shard's share is done; others are still at work")
        return Outcome(stage.key, reasons, seconds=seconds, done=False)
    found = asdict(result)
    lock.record(stage.key, Entry(started.parameters, started.inputs, hashes(stage.outputs), found, versions()))
    return Outcome(stage.key, reasons, found, seconds)


def _refuse_touched(stage: Stage, entry: Entry | None) -> None:
    path = touched(entry, stage.outputs)
    if path is not None:
        what = f"what stands here was not made by {stage.key}, or was changed since"
        raise DataError(what, file=path, hint="move it away to keep it; --force makes it again")


def _need(stage: Stage) -> None:
    """Refuse a stage whose inputs are not there.

    Raises:
        DataError: Names the first missing input and the command that makes it.
    """
    for name, path in stage.inputs.items():
        if not path.exists():
            hint = f"`{_MAKERS[name]}` makes it" if name in _MAKERS else None
            raise DataError(f"{stage.name} needs {name}, which is not there", file=path, hint=hint)
