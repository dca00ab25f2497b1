"""Stages in processes of their own, which report to this one: several students are trained at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from multiprocessing import active_children, get_context
from threading import Thread
from typing import Any, TypeVar

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError
from kdcli.parts.engine import processes, usable_cores
from kdcli.run.context import RunContext
from kdcli.run.stage import Stage

Outcome = TypeVar("Outcome")
Execute = Callable[[Stage, RunContext], Any]
"""Runs a stage and returns its result."""


def run_at_once(
    calls: Sequence[Callable[[Execute], Outcome]], workers: int, reporter: Reporter
) -> list[Outcome]:
    """Make calls at the same time, whose stages run in ``workers`` processes that share the cores.

    The first failure ends all processes at once.

    Args:
        calls: Each gets a function that runs a stage in one of the processes.
        workers: How many stages run at once.
        reporter: Gets the reports of all processes.

    Raises:
        KdError: A process died.
    """
    cores = max(1, usable_cores() // workers)
    with (
        get_context("spawn").Manager() as manager,
        processes(workers) as pool,
        ThreadPoolExecutor(len(calls)) as threads,
    ):
        others, reports = active_children(), manager.Queue()
        listener = Thread(target=_replay, args=(reports, reporter))
        listener.start()

        def execute(stage: Stage, run: RunContext) -> Any:
            try:
                return pool.submit(_run, stage, replace(run, reporter=QuietReporter()), cores, reports).result()
            except BrokenProcessPool:
                hint = "the memory may be too small for so many at once; the same command resumes"
                raise KdError(f"the process of {stage.key(run)} died", hint=hint) from None

        running = [threads.submit(call, execute) for call in calls]
        try:
            for ended in as_completed(running):
                ended.result()
        except BaseException:
            for child in active_children():
                if child not in others:
                    child.terminate()
            raise
        finally:
            reports.put(None)
            listener.join()
        return [ended.result() for ended in running]


def _run(stage: Stage, run: RunContext, cores: int, reports: Any) -> Any:
    """Run a stage in a child process."""
    import torch

    torch.set_num_threads(cores)
    return stage.run(replace(run, reporter=_QueueReporter(stage.key(run), reports)))


class _QueueReporter:
    """A reporter that puts everything into a queue."""

    def __init__(self, key: str, reports: Any) -> None:
        self._key, self._reports, self._numbers = key, reports, count()

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> Iterator[_QueueProgress]:
        bar = f"{self._key} {next(self._numbers)}"
        self._reports.put(("open", bar, title, total, unit))
        try:
            yield _QueueProgress(bar, self._reports)
        finally:
            self._reports.put(("close", bar))

    def info(self, message: str) -> None:
        self._reports.put(("info", message))

    def warn(self, message: str) -> None:
        self._reports.put(("warn", message))

    def metrics(self, stage: str, step: int, **values: float) -> None:
        self._reports.put(("metrics", stage, step, values))


class _QueueProgress:
    def __init__(self, bar: str, reports: Any) -> None:
        self._bar, self._reports = bar, reports

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        self._reports.put(("advance", self._bar, steps, shown))


def _replay(reports: Any, reporter: Reporter) -> None:
    """Hand reports to the reporter of this process, until there is a None."""
    bars: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    while (report := reports.get()) is not None:
        match report:
            case "open", bar, title, total, unit:
                bars[bar] = reporter.progress(title, total, unit)
                shown[bar] = bars[bar].__enter__()
            case "advance", bar, steps, values:
                shown[bar].advance(steps, **values)
            case "close", bar:
                bars.pop(bar).__exit__(None, None, None)
            case "metrics", stage, step, values:
                reporter.metrics(stage, step, **values)
            case kind, message:
                getattr(reporter, kind)(message)
    for context in bars.values():  # of processes that were ended
        context.__exit__(None, None, None)
