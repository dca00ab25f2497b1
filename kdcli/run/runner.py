"""Run stages in order, each only where it is not up to date, and write in ``kd.lock`` how it was made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from kdcli.api import Reporter
from kdcli.errors import DataError, KdError, UsageError, first_line
from kdcli.files import atomic
from kdcli.parts.engine import is_main_process, usable_cores
from kdcli.run.context import RunContext
from kdcli.run.lock import Entry, Lock, hashes, versions
from kdcli.run.parallel import Execute, run_at_once
from kdcli.run.plan import Step, check, plan, select, would_run
from kdcli.run.stage import Stage
from kdcli.run.stages import STAGES
from kdcli.run.tracking import parse_trackers, tracking

if TYPE_CHECKING:
    from kdcli.config.load import Profile

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class RunOptions:
    """How stages are run; each field is the flag of that name (``first`` is ``--from``)."""

    run_dir: Path | None = None
    resume: bool = True
    force: bool = False
    dry_run: bool = False
    track: str | None = None
    seeds: int = 1
    first: str | None = None
    until: str | None = None
    only: str | None = None

    def root(self, profile: Profile) -> Path:
        """Return the run folder: the one asked for, or ``runs/PROFILE``."""
        return self.run_dir or Path("runs") / profile.name


@dataclass(frozen=True)
class Outcome:
    """What a stage came to.

    Attributes:
        stage: Its key in ``kd.lock``.
        name: Its name in ``STAGES``.
        reasons: Why it ran (or would run); empty where it was up to date.
        result: Its result dataclass, of now or of when it last ran; None in a dry run.
        seconds: How long it took; 0.0 where it did not run.
        done: Whether its outputs are up to date now.
    """

    stage: str
    name: str
    reasons: list[str]
    result: Any = None
    seconds: float = 0.0
    done: bool = True


def run_stages(
    names: Sequence[str] | None,
    profile: Profile,
    *,
    options: RunOptions | None = None,
    inputs: Mapping[str, Path | None] | None = None,
    outputs: Mapping[str, Path | None] | None = None,
    reporter: Reporter,
) -> list[Outcome]:
    """Run stages of a profile.

    Args:
        names: The stages, in order; None for all of the profile, as far as ``options`` chooses them.
        profile: The resolved profile.
        options: How to run them.
        inputs: Artefacts to take from outside the run folder, by their name in ``LAYOUT``; None means its own.
        outputs: Artefacts to write outside it; the stages that write them leave no trace in it.
        reporter: Shows the progress.

    Raises:
        DataError: An input is missing, or an output exists that ``kd`` did not make.
        KdError: Another launch works in the run folder, or a stage fails.
        UsageError: The task cannot be trained; a stage or a tracker is unknown.
    """
    from kdcli.models.device import resolve

    options = options or RunOptions()
    _check_trainable(profile)
    trackers, root, device = parse_trackers(options.track), options.root(profile), resolve(profile.settings.device)
    own = {name: path for name, path in (outputs or {}).items() if path is not None}
    given = {name: path for name, path in (inputs or {}).items() if path is not None}
    run = RunContext(profile.settings, root, device, options.resume, options.seeds, elsewhere={**given, **own})
    stages = [STAGES[name]() for name in names or STAGES]
    if names is None:
        applying = [stage for stage in stages if stage.applies(profile.settings)]
        stages = select(applying, options.first, options.until, options.only)
    steps = plan(stages, run, own)
    lock = Lock(root, replace=options.force)
    if options.dry_run:
        every = would_run(steps, lock, force=options.force)
        return [Outcome(s.key, s.stage.name, reasons, done=not reasons) for s, reasons in zip(steps, every, strict=True)]
    if is_main_process():
        check(steps, lock, force=options.force)
    if not is_main_process() or all(step.alone for step in steps):
        return run_steps(steps, lock, reporter=reporter, force=options.force)
    with (
        one_launch(root),
        tracking(trackers, root, profile.name, device, reporter) as curves,
    ):
        with atomic(root / "profile.toml") as temporary:
            temporary.write_text(profile.to_toml(), "utf-8")
        return run_steps(steps, lock, reporter=curves, force=options.force)


def run_steps(steps: Sequence[Step], lock: Lock, *, reporter: Reporter, force: bool = False) -> list[Outcome]:
    """Run the steps that are not up to date in order; students at the same time, where there are cores for them."""
    outcomes: list[Outcome] = []
    for _, group in groupby(steps, key=lambda step: step.stage.name):
        group_steps = [replace(step, run=replace(step.run, reporter=reporter)) for step in group]
        reasons = [_reasons(step, lock, force) for step in group_steps]
        calls = [partial(run_step, step, why, lock) for step, why in zip(group_steps, reasons, strict=True)]
        workers = min(sum(map(bool, reasons)), usable_cores())
        if workers > 1 and group_steps[0].run.device == "cpu":
            outcomes += run_at_once(calls, workers, reporter)
        else:
            outcomes += [call(_run_here) for call in calls]
    return outcomes


def run_step(step: Step, reasons: list[str], lock: Lock, execute: Execute) -> Outcome:
    """Run a step that has reasons to run, and record it; a step outside the run folder leaves no record."""
    before = None if step.alone else lock.entry(step.key)
    if not reasons:
        return Outcome(step.key, step.stage.name, [], before and _result(step.key, before, lock))
    record = not step.alone and is_main_process()
    for reason in reasons:
        step.run.reporter.info(f"{step.key}: {reason}")
    entry = Entry(dict(step.parameters), hashes(step.inputs), versions=versions())
    if record:
        lock.record(step.key, entry)
    begin = time.perf_counter()
    try:
        result = execute(step.stage, step.run)
    except BaseException:
        if record and before and before.outputs == hashes(step.outputs):
            lock.record(step.key, before)  # its outputs of last time are still whole
        raise
    seconds = time.perf_counter() - begin
    if record:
        lock.record(step.key, replace(entry, outputs=hashes(step.outputs), result=asdict(result)))
    return Outcome(step.key, step.stage.name, reasons, result, seconds)


def results(root: Path) -> dict[str, Any]:
    """Return the result dataclass of every stage of a run folder that ended, by its key.

    Raises:
        DataError: ``kd.lock`` is damaged, or an older kd wrote it.
    """
    lock = Lock(root)
    return {key: _result(key, entry, lock) for key, entry in lock.entries().items() if entry.ended}


@contextmanager
def one_launch(root: Path) -> Iterator[None]:
    """Hold a run folder for this launch.

    Raises:
        KdError: Another launch works in the folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".launch.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        hint = "wait for it, stop it, or name another folder with --run-dir"
        raise KdError("another kd is at work in this run folder", file=root, hint=hint) from None
    try:
        yield
    finally:
        lock.release()


def _reasons(step: Step, lock: Lock, force: bool) -> list[str]:
    """Return why a step runs in this process; under ``torchrun``, wait while only the main process runs it."""
    reasons = step.reasons(lock, force=force)
    if is_main_process() or step.stage.together:
        return reasons
    while step.reasons(lock) if not step.alone else not all(path.exists() for path in step.outputs.values()):
        time.sleep(_POLL_SECONDS)
    return []


def _run_here(stage: Stage, run: RunContext) -> Any:
    return stage.run(run)


def _result(key: str, entry: Entry, lock: Lock) -> Any:
    """Rebuild a result dataclass from ``kd.lock``."""
    stage = STAGES[key.partition("-seed")[0]]
    try:
        return TypeAdapter(stage.result_type()).validate_python(entry.result)
    except ValidationError as error:
        what = f"the result of {key} cannot be read: {first_line(error)}"
        raise DataError(what, file=lock.path, hint="--force makes it again") from error


def _check_trainable(profile: Profile) -> None:
    """Refuse a task that has no training set of its own, such as GLUE's diagnostics.

    Raises:
        UsageError: Names the commands that predict it.
    """
    if other := profile.settings.task.student_of:
        what = f"{profile.name} has no training set: the student of {other} predicts it"
        predict = f"kd predict --student runs/{other}/student --profile {profile.name} --input FILE"
        raise UsageError(what, key="task.student_of", hint=f"kd run-all --profile {other}, then {predict}")
