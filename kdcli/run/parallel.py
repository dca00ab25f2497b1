"""Stages in processes of their own, which report to this one: several students are trained at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any, TypeVar

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError
from kdcli.parts.engine import follow_parent, usable_cores
from kdcli.run.context import RunContext
from kdcli.run.stage import Stage

Outcome = TypeVar("Outcome")
Execute = Callable[[Stage, RunContext], Any]
"""Runs a stage and returns its result."""


def run_at_once(calls: Sequence[Callable[[Execute], Outcome]], workers: int, reporter: Reporter) -> list[Outcome]:
    """Make calls at the same time, whose stages run in processes that share the cores; the first failure ends all.

    Args:
        calls: Each gets a function that runs a stage in a process.
        workers: How many stages run at once.
        reporter: Gets the reports of all processes.

    Raises:
        KdError: A process died.
    """
    processes: list[Any] = []
    reporting = Lock()

    def execute(stage: Stage, run: RunContext) -> Any:
        ours, theirs = get_context("spawn").Pipe(duplex=False)
        bare = replace(run, reporter=QuietReporter())
        arguments = (stage, bare, max(1, usable_cores() // workers), theirs)
        process = get_context("spawn").Process(target=_run, args=arguments)
        process.start()
        processes.append(process)
        theirs.close()
        try:
            return _listen(ours, reporter, reporting)
        except EOFError:
            hint = "the memory may be too small for so many at once; the same command resumes"
            raise KdError(f"the process of {stage.key(run)} died", hint=hint) from None
        finally:
            process.join()

    with ThreadPoolExecutor(workers) as threads:
        running = [threads.submit(call, execute) for call in calls]
        try:
            for ended in as_completed(running):
                ended.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            raise
    return [ended.result() for ended in running]


def _run(stage: Stage, run: RunContext, cores: int, pipe: Connection) -> None:
    """Run a stage in a child process, and send what it reports, then its result or its error."""
    import torch

    follow_parent()
    torch.set_num_threads(cores)
    try:
        pipe.send(("result", stage.run(replace(run, reporter=_PipeReporter(pipe)))))
    except Exception as error:
        pipe.send(("error", error))


def _listen(pipe: Connection, reporter: Reporter, reporting: Lock) -> Any:
    """Hand the reports of a process to a reporter until its result comes."""
    bars: dict[int, Any] = {}
    stacks: dict[int, ExitStack] = {}
    try:
        while True:
            report = pipe.recv()
            with reporting:
                match report:
                    case "result", result:
                        return result
                    case "error", error:
                        raise error
                    case "open", bar, title, total, unit:
                        stacks[bar] = ExitStack()
                        bars[bar] = stacks[bar].enter_context(reporter.progress(title, total, unit))
                    case "advance", bar, steps, values:
                        bars[bar].advance(steps, **values)
                    case "close", bar:
                        stacks.pop(bar).close()
                    case "metrics", stage, step, values:
                        reporter.metrics(stage, step, **values)
                    case kind, message:
                        getattr(reporter, kind)(message)
    finally:
        for stack in stacks.values():  # of a process that died
            stack.close()


class _PipeReporter:
    """A reporter that sends everything through a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._numbers = pipe, count()

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> Iterator[_PipeProgress]:
        bar = next(self._numbers)
        self._pipe.send(("open", bar, title, total, unit))
        try:
            yield _PipeProgress(bar, self._pipe)
        finally:
            self._pipe.send(("close", bar))

    def info(self, message: str) -> None:
        self._pipe.send(("info", message))

    def warn(self, message: str) -> None:
        self._pipe.send(("warn", message))

    def metrics(self, stage: str, step: int, **values: float) -> None:
        self._pipe.send(("metrics", stage, step, values))


class _PipeProgress:
    def __init__(self, bar: int, pipe: Connection) -> None:
        self._bar, self._pipe = bar, pipe

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        self._pipe.send(("advance", self._bar, steps, shown))
