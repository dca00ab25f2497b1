"""Run the stages that are not up to date, in order, and record them in ``kd.lock``."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kdcli.api import Reporter
from kdcli.config.load import Profile
from kdcli.config.transfer import METHODS
from kdcli.errors import DataError, UsageError, first_line
from kdcli.files import alone, check_output, sha256, write_text
from kdcli.parts import engine_of, is_main_process, usable_cores
from kdcli.run import LAYOUT, Entry, Lock, hashes, stale, versions
from kdcli.run.stage import Files, RunContext, SeedPart, Stage
from kdcli.run.stages import STAGES, TRANSFER
from kdcli.run.tracking import parse_trackers, tracking
from kdcli.tasks.split import check_labelled

_POLL_SECONDS = 0.5
ALONE = "another kd is at work in this run folder"


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
    """The outcome of a stage."""

    stage: str  # its key in kd.lock
    name: str  # its name in STAGES
    reasons: list[str]  # why it ran (or would run); empty where it was up to date
    result: Any = None  # its result dataclass, of now or of when it last ran; in a dry run what it would take, or None
    seconds: float = 0.0  # 0.0 where it did not run
    done: bool = True  # whether its outputs are up to date now


@dataclass(frozen=True)
class Step:
    """A stage with its run; with ``alone``, it writes outside the run folder and ``kd.lock`` does not record it."""

    stage: Stage
    run: RunContext
    key: str
    parameters: Mapping[str, Any]
    inputs: Files
    outputs: Files
    alone: bool = False

    def reasons(self, lock: Lock, inputs: Mapping[str, str], *, force: bool = False) -> list[str]:
        """Return why it has to run, given the hashes of its inputs; nothing where it is up to date."""
        if self.alone or force:
            return ["--force" if force else "asked for"]
        return stale(lock.entry(self.key), self.parameters, inputs, self.outputs)


def run_stages(
    names: Sequence[str] | None,
    profile: Profile,
    *,
    options: RunOptions | None = None,
    inputs: Mapping[str, Path | None] | None = None,
    outputs: Mapping[str, Path | None] | None = None,
    reporter: Reporter,
) -> list[Outcome]:
    """Run stages of a profile: those that are named, in order, or else all of it as far as ``options`` chooses them.

    ``inputs`` are artefacts to take from outside the run folder, by their name in ``LAYOUT`` (None means its own), and
    ``outputs`` those to write outside it; the stages that write them leave no trace in it.
    """
    from kdcli.models.device import at_hand, resolve

    options = options or RunOptions()
    _check_trainable(profile)
    trackers, root, wanted = parse_trackers(options.track), options.root(profile), profile.settings.device
    device = resolve(wanted) if profile.settings.engine == "local" else at_hand(wanted)
    if device == "cpu" and wanted not in ("auto", "cpu"):
        reporter.warn(f"this machine has no {wanted}: what does not run on the cluster runs on the CPU")
    own = {name: path for name, path in (outputs or {}).items() if path is not None}
    given = {name: path for name, path in (inputs or {}).items() if path is not None}
    more: dict[str, Any] = {"elsewhere": {**given, **own}, "engine": engine_of(profile.settings)}
    run = RunContext(profile.settings, root, device, options.resume, options.seeds, **more)
    stages = [STAGES[name]() for name in names or STAGES]
    if names is None:
        applying = [stage for stage in stages if stage.applies(profile.settings)]
        stages = select(applying, options.first, options.until, options.only)
    steps, lock = plan(stages, run, own), Lock(root, replace=options.force)
    for split in dict.fromkeys(split for step in steps for split in step.stage.labelled):
        check_labelled(profile.settings.task, run.task, split)
    if is_main_process():
        check(steps, lock, force=options.force, dry_run=options.dry_run)
    if options.dry_run:
        return would_run(steps, lock, force=options.force)
    with ExitStack() as stack:
        stack.callback(run.engine.stop)
        if is_main_process() and not all(step.alone for step in steps):
            stack.enter_context(alone(root, ALONE, inside=True))
            reporter = stack.enter_context(tracking(trackers, root, profile.name, device, reporter))
            if names is None or not (root / "profile.toml").exists():  # one stage alone does not change what the run is
                write_text(root / "profile.toml", profile.to_toml())
        return run_steps(steps, lock, reporter=reporter, force=options.force)


def select(stages: Sequence[Stage], first: str | None, until: str | None, only: str | None) -> list[Stage]:
    """Choose the stages that ``--from``, ``--until`` and ``--only`` name; ``transfer`` means all that make the set."""
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


def plan(stages: Sequence[Stage], run: RunContext, outputs: Collection[str] = ()) -> list[Step]:
    """Make the steps of a run, those of students once for each seed; ``outputs`` are outside the run folder."""
    steps = []
    for stage in stages:
        for own in run.each_seed() if stage.per_seed else [run]:
            made = stage.outputs(own)
            alone = not made.keys().isdisjoint(outputs)
            steps.append(Step(stage, own, stage.key(own), stage.parameters(own), stage.inputs(own), made, alone))
    return steps


def check(steps: Sequence[Step], lock: Lock, *, force: bool, dry_run: bool = False) -> None:
    """Fail fast: check that inputs exist, and that nothing would be overwritten that ``kd`` did not make.

    What is missing, or there already, is no fault of a dry run. A ``DataError`` names the first file that is missing,
    with the command that makes it, or that is in the way; an output that is an input is a ``UsageError``.
    """
    coming: set[Path] = set()
    made: set[Path] = set()
    read: set[Path] = set()
    for step in steps:  # in order: what a step reads before it is made is not of this run
        read |= set(step.inputs.values()) - made
        made |= set(step.outputs.values())
    for step in steps:
        for name, path in step.inputs.items():
            if path not in coming and not path.exists() and not dry_run:
                own = [] if name in step.run.elsewhere else STAGES.values()
                makers = (stage for stage in own if path in map(step.run.path, stage.makes))
                alone = next((stage.command.format(stage.name) for stage in makers), None)
                hint = alone and f"`{alone}` makes it, `kd run-all` all that comes before"
                if name == "transfer" and (methods := [one for one in METHODS if step.run.path(one).exists()]):
                    hint = f"this run has texts of {' and '.join(methods)}: --set transfer.method={'+'.join(methods)}"
                raise DataError(f"the stage {step.stage.name} needs this, which is not there", file=path, hint=hint)
        entry = None if step.alone else lock.entry(step.key)
        for name, path in step.outputs.items():
            if not entry or entry.ended:  # else a plugin may have begun to write it
                # A stage may add a file to what another has made: the student's calibration.
                inputs = read if step.alone else read - {path.parent}
                check_output(path, inputs, force=force or dry_run, ours=not step.alone)
            there = path.exists() and not step.alone and not force and not dry_run
            if there and not (entry and (not entry.ended or sha256(path) == entry.outputs.get(name))):
                what = f"{step.key} did not make this, or it was changed since"
                raise DataError(what, file=path, hint="move it away to keep it; --force makes it again")
        coming |= set(step.outputs.values())


def would_run(steps: Sequence[Step], lock: Lock, *, force: bool) -> list[Outcome]:
    """Return which steps would run and why, each as if those before it had run."""
    outcomes = []
    coming: set[Path] = set()
    for step in steps:
        entry = lock.entry(step.key)
        awaited = [name for name, path in step.inputs.items() if path in coming]
        inputs = hashes({name: path for name, path in step.inputs.items() if name not in awaited})
        if entry:
            inputs |= {name: entry.inputs.get(name, "") for name in awaited}
        reasons = step.reasons(lock, inputs, force=force)
        reasons += [f"input {name} will change" for name in awaited if entry]
        coming |= set(step.outputs.values()) if reasons else set()
        known = bool(reasons) and not awaited
        estimate = step.stage.estimate(step.run) if known else None
        outcomes.append(Outcome(step.key, step.stage.name, reasons, estimate, done=not reasons))
    return outcomes


def run_steps(steps: Sequence[Step], lock: Lock, *, reporter: Reporter, force: bool = False) -> list[Outcome]:
    """Run the steps that are not up to date in order; students at the same time, where there is room for them."""
    outcomes: list[Outcome] = []
    names = list(dict.fromkeys(step.stage.name for step in steps))
    for name, group in groupby(steps, key=lambda step: step.stage.name):
        calls = []
        for step in group:
            inputs = hashes(step.inputs)
            own = replace(step, run=replace(step.run, reporter=reporter))
            calls.append((own, inputs, _reasons(own, inputs, lock, force)))
        todo = sum(bool(reasons) for *_, reasons in calls)
        if todo:
            calls[0][0].run.engine.start()  # before the work that comes first, whatever does it
        if len(names) > 1 and todo:
            reporter.info(f"stage {names.index(name) + 1} of {len(names)}: {name}")
        if todo > 1 and calls[0][0].stage.makes:
            outcomes += _run_seeds(calls, lock, reporter)
        else:
            outcomes += [run_step(*call, lock) for call in calls]
    return outcomes


def _run_seeds(
    calls: Sequence[tuple[Step, dict[str, str], list[str]]], lock: Lock, reporter: Reporter
) -> list[Outcome]:
    """Run the steps of several seeds, in any order; the first failure ends all."""
    todo = {number: call for number, call in enumerate(calls) if call[2]}
    outcomes = {number: run_step(*call, lock) for number, call in enumerate(calls) if not call[2]}
    first = next(iter(todo.values()))[0]
    workers = min(len(todo), usable_cores()) if first.run.device == "cpu" else 1
    part = SeedPart.of(first.stage, {number: step.run for number, (step, *_) in todo.items()}, workers)
    paths = {number: path for number, (step, *_) in todo.items() for path in step.outputs.values()}
    files = {path for step, *_ in todo.values() for name, path in step.inputs.items() if name in LAYOUT}
    with first.run.engine as engine, ExitStack() as stack:
        ends = {number: stack.enter_context(recorded(*call, lock)) for number, call in todo.items()}
        how: dict[str, Any] = {"workers": workers, "device": first.run.parts_device, "files": sorted(files)}
        for number, (result, seconds) in engine.make(part, paths, keep=True, reporter=reporter, **how):
            outcomes[number] = ends[number](result, seconds)
    return [outcomes[number] for number in sorted(outcomes)]


def run_step(step: Step, inputs: dict[str, str], reasons: list[str], lock: Lock) -> Outcome:
    """Run a step that has reasons to run, and record it in ``kd.lock``."""
    if not reasons:
        before = None if step.alone else lock.entry(step.key)
        return Outcome(step.key, step.stage.name, [], before and _result(step.key, before, lock))
    with recorded(step, inputs, reasons, lock) as end:
        begin = time.perf_counter()
        return end(step.stage.run(step.run), time.perf_counter() - begin)


@contextmanager
def recorded(
    step: Step, inputs: dict[str, str], reasons: list[str], lock: Lock
) -> Iterator[Callable[[Any, float], Outcome]]:
    """Record in ``kd.lock`` that a step runs, and that it has ended once the function is called that this gives."""
    before = None if step.alone else lock.entry(step.key)
    record, ended = not step.alone and is_main_process(), False
    for reason in reasons:
        step.run.reporter.info(f"{step.key}: {reason}")
    entry = Entry(dict(step.parameters), inputs, versions=versions())
    if record:
        lock.record(step.key, entry)

    def end(result: Any, seconds: float) -> Outcome:
        nonlocal ended
        if record:
            lock.record(step.key, replace(entry, outputs=hashes(step.outputs), result=asdict(result)))
        ended = True
        return Outcome(step.key, step.stage.name, reasons, result, seconds)

    try:
        yield end
    except BaseException:
        if record and not ended and before and before.outputs == hashes(step.outputs):
            lock.record(step.key, before)  # its outputs of last time are still whole
        raise


def results(root: Path) -> dict[str, Any]:
    """Return the result dataclass of every stage of a run folder that ended, by its key."""
    lock = Lock(root)
    return {key: _result(key, entry, lock) for key, entry in lock.entries().items() if entry.ended}


def _reasons(step: Step, inputs: dict[str, str], lock: Lock, force: bool) -> list[str]:
    """Return why a step runs in this process; under ``torchrun``, wait while only the main process runs it."""
    if is_main_process() or step.stage.together:
        return step.reasons(lock, inputs, force=force)
    while not all(path.exists() for path in step.outputs.values()) if step.alone else step.reasons(lock, inputs):
        time.sleep(_POLL_SECONDS)
    return []


def _result(key: str, entry: Entry, lock: Lock) -> Any:
    """Rebuild a result dataclass from ``kd.lock``."""
    try:
        return TypeAdapter(STAGES[key.partition("-seed")[0]].result_type()).validate_python(entry.result)
    except ValidationError as error:
        what = f"the result of {key} cannot be read: {first_line(error)}"
        raise DataError(what, file=lock.path, hint="--force makes it again") from error


def _check_trainable(profile: Profile) -> None:
    """Refuse a task that has no training set of its own, such as GLUE's diagnostics."""
    if other := profile.settings.task.student_of:
        what = f"{profile.name} has no training set: the student of {other} predicts it"
        predict = f"kd predict --student runs/{other}/student --profile {profile.name} --input FILE"
        raise UsageError(what, key="task.student_of", hint=f"kd run-all --profile {other}, then {predict}")
