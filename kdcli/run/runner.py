"""Run the stages of a plan in order, each only where it is not up to date."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kdcli.api import Reporter
from kdcli.errors import DataError, UsageError
from kdcli.run.context import Stage
from kdcli.run.lock import Entry, Lock, hashes, stale, touched, versions
from kdcli.run.stages import NAMES
from kdcli.run.transfer_stages import TRANSFER

_MAKERS = {
    "transfer": "kd transfer lite`, `kd transfer heavy` or `kd transfer corpus",
    "lite": "kd transfer lite",
    "heavy": "kd transfer heavy",
    "corpus": "kd transfer corpus",
    "cache": "kd transfer heavy --only cache",
    "generator": "kd transfer heavy --only fine-tune",
    "prefixes": "kd transfer heavy --only prefixes",
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
    """Choose the stages that ``--from``, ``--until`` and ``--only`` name; ``transfer`` means all that make the set.

    Raises:
        UsageError: A name is no stage, or the choice is empty.
    """
    for name in (first, until, only):
        if name is not None and name not in ("transfer", *NAMES):
            hint = f"the stages are transfer (which is {', '.join(TRANSFER)}), {', '.join(NAMES[len(TRANSFER) :])}"
            raise UsageError(f"there is no stage {name!r}", hint=hint)
    if only and (first or until):
        raise UsageError("--only goes without --from and --until")
    begin, end = only or first or NAMES[0], only or until or NAMES[-1]
    low = NAMES.index(TRANSFER[0] if begin == "transfer" else begin)
    high = NAMES.index(TRANSFER[-1] if end == "transfer" else end)
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
    if dry_run:
        return _would_run(stages, lock, force)
    _look_ahead(stages, lock, force)
    outcomes: list[Outcome] = []
    for stage in stages:
        with _turn(stage, root, reporter):
            outcomes.append(_run(stage, lock, force, reporter))
        if not outcomes[-1].done:
            break
    return outcomes


def run_alone(stage: Stage, *, reporter: Reporter, force: bool = False) -> Outcome:
    """Run one stage outside a run folder, to outputs that the user named.

    Raises:
        DataError: An input is missing, or an output exists and ``force`` is not given.
    """
    _need(stage, stage.inputs)
    if not force:
        refuse_existing(stage)
    begin = time.perf_counter()
    result = stage.run(reporter)
    seconds = time.perf_counter() - begin
    return Outcome(stage.key, ["asked for"], asdict(result) if result else {}, seconds, done=result is not None)


def refuse_existing(stage: Stage) -> None:
    """Refuse a stage one of whose outputs stands there.

    Raises:
        DataError: Names it.
    """
    for path in stage.outputs.values():
        if path.exists():
            raise DataError("the output exists already", file=path, hint="--force overwrites it")


def _would_run(stages: Sequence[Stage], lock: Lock, force: bool) -> list[Outcome]:
    """Say which stages would run and why, each as if those before it had."""
    outcomes: list[Outcome] = []
    coming: set[Path] = set()
    for stage in stages:
        entry = lock.entry(stage.key)
        awaited = {name for name, path in stage.inputs.items() if path in coming}
        inputs = hashes({name: path for name, path in stage.inputs.items() if name not in awaited})
        if entry:
            inputs |= {name: entry.inputs.get(name, "") for name in awaited}
        reasons = ["--force"] if force else stale(entry, stage.parameters, inputs, stage.outputs)
        reasons += [f"input {name} will change" for name in stage.inputs if name in awaited and entry]
        coming |= set(stage.outputs.values()) if reasons else set()
        outcomes.append(Outcome(stage.key, reasons, done=not reasons))
    return outcomes


def _look_ahead(stages: Sequence[Stage], lock: Lock, force: bool) -> None:
    """Refuse before hours of work what would be refused after it: a file of the user's is missing, or in the way."""
    coming: set[Path] = set()
    for stage in stages:
        own = {name: path for name, path in stage.inputs.items() if name not in _MAKERS and path not in coming}
        _need(stage, own)
        if not force and lock.entry(stage.key) is None:
            _refuse_touched(stage, None)
        coming |= set(stage.outputs.values())


@contextmanager
def _turn(stage: Stage, root: Path, reporter: Reporter) -> Iterator[None]:
    """Wait until no other process of this launch runs the stage, unless they run it together."""
    if stage.together:
        yield
        return
    root.mkdir(parents=True, exist_ok=True)
    turn = FileLock(root / f".{stage.key}.lock")
    try:
        turn.acquire(timeout=0)
    except Timeout:
        reporter.info(f"{stage.key}: another process is at it")
        turn.acquire()
    try:
        yield
    finally:
        turn.release()


def _run(stage: Stage, lock: Lock, force: bool, reporter: Reporter) -> Outcome:
    entry, inputs = lock.entry(stage.key), hashes(stage.inputs)
    reasons = ["--force"] if force else stale(entry, stage.parameters, inputs, stage.outputs)
    if reasons:
        _need(stage, stage.inputs)
    if not force:
        _refuse_touched(stage, entry)
    if not reasons:
        return Outcome(stage.key, [], entry.result if entry else {})
    for reason in reasons:
        reporter.info(f"{stage.key}: {reason}")
    started = Entry(dict(stage.parameters), inputs, versions=versions())
    lock.record(stage.key, started)
    begin = time.perf_counter()
    try:
        result = stage.run(reporter)
    except BaseException:
        if entry and entry.outputs == hashes(stage.outputs):
            lock.record(stage.key, entry)  # what it made the last time still stands, whole
        raise
    seconds = time.perf_counter() - begin
    if result is None:
        reporter.info(f"{stage.key}: this shard's share is done; others are still at work")
        return Outcome(stage.key, reasons, seconds=seconds, done=False)
    found = asdict(result)
    lock.record(stage.key, replace(started, outputs=hashes(stage.outputs), result=found))
    return Outcome(stage.key, reasons, found, seconds)


def _refuse_touched(stage: Stage, entry: Entry | None) -> None:
    path = touched(entry, stage.outputs)
    if path is not None:
        what = f"what stands here was not made by {stage.key}, or was changed since"
        raise DataError(what, file=path, hint="move it away to keep it; --force makes it again")


def _need(stage: Stage, inputs: Mapping[str, Path]) -> None:
    """Refuse a stage some of whose inputs are not there.

    Raises:
        DataError: Names the first missing input and the command that makes it.
    """
    for name, path in inputs.items():
        if not path.exists():
            hint = f"`{_MAKERS[name]}` makes it" if name in _MAKERS else None
            raise DataError(f"{stage.name} needs {name}, which is not there", file=path, hint=hint)
