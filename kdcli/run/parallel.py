"""Stages in processes of their own, which report to this one: several students are trained at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any, TypeVar

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError
from kdcli.parts import follow_parent, usable_cores
from kdcli.run.stage import RunContext, Stage

Outcome = TypeVar("Outcome")
Execute = Callable[[Stage, RunContext], Any]
"""Runs a stage and returns its result."""


def run_at_once(calls: Sequence[Callable[[Execute], Outcome]], workers: int, reporter: Reporter) -> list[Outcome]:
    """Make calls at the same time; each gets a function that runs a stage in a process of its own.

    ``workers`` processes run at once and share the cores. The first failure ends all; a process that died is a
    ``KdError``.
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
        pipe.send(("result", stage.run(replace(run, reporter=_PipeReporter(pipe))), {}))
    except Exception as error:
        pipe.send(("error", error, {}))


def _listen(pipe: Connection, reporter: Reporter, reporting: Lock) -> Any:
    """Hand the reports of a process to a reporter until its result comes."""
    with ExitStack() as open_bars:  # of a process that dies
        bars: list[Any] = []
        while True:
            kind, *values, named = pipe.recv()
            with reporting:
                if kind == "result":
                    return values[0]
                if kind == "error":
                    raise values[0]
                if kind == "open":
                    inner = ExitStack()
                    bars.append((inner, inner.enter_context(reporter.progress(*values))))
                    open_bars.push(inner)
                elif kind == "close":
                    bars.pop()[0].close()
                elif kind == "advance":
                    bars[-1][1].advance(*values, **named)
                else:
                    getattr(reporter, kind)(*values, **named)


class _PipeReporter:
    """A reporter, and a progress, that sends everything through a pipe; the innermost progress advances."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> Iterator[_PipeReporter]:
        self._pipe.send(("open", title, total, unit, {}))
        try:
            yield self
        finally:
            self._pipe.send(("close", {}))

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        self._pipe.send(("advance", steps, shown))

    def info(self, message: str) -> None:
        self._pipe.send(("info", message, {}))

    def warn(self, message: str) -> None:
        self._pipe.send(("warn", message, {}))

    def metrics(self, stage: str, step: int, **values: float) -> None:
        self._pipe.send(("metrics", stage, step, values))
