"""Progress: a live panel on a terminal, a plain line every few seconds elsewhere."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress as Tasks

MARGIN = 3
"""Columns of the terminal that the panel leaves free: a ``^C`` at its end would start a line that nobody erases."""
_spinners: list[Live] = []


def start_spinner(console: Console, title: str) -> None:
    """Show a spinner on a terminal until ``stop_spinner``."""
    from rich.spinner import Spinner

    spinner = Spinner("dots", f"{title}: starting")
    _spinners.append(Live(spinner, console=console, transient=True, redirect_stdout=False))
    _spinners[-1].start()


def stop_spinner() -> None:
    """Remove the spinner, if there is one."""
    while _spinners:
        _spinners.pop().stop()


class Work:
    """One piece of work: its units, its rate (of the last 30 seconds, by Rich) and the time left."""

    def __init__(self, tasks: "Tasks", title: str, total: int | None, unit: str, advanced: Callable[..., None]) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.shown: dict[str, float | str] = {}
        self._tasks, self._advanced = tasks, advanced
        self._id = tasks.add_task(title, total=total)
        self._task = next(task for task in tasks.tasks if task.id == self._id)
        self._started = tasks.get_time()
        self._first: tuple[int, float] | None = None

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        """Count ``steps`` more units, and show values beside them."""
        self._first = self._first or (steps, self._tasks.get_time())
        self.done += steps
        self._tasks.advance(self._id, steps)
        # A new dictionary: the thread that draws reads the old one.
        self.shown = {**self.shown, **shown}
        self._advanced(self)

    def counted(self) -> str:
        """Return the count: ``12,800/67,349 rows (19 %)``."""
        if self.total is None:
            return f"{self.done:,} {self.unit}"
        share = f" ({math.floor(100 * self.done / self.total)} %)" if self.total else ""
        return f"{self.done:,}/{self.total:,} {self.unit}{share}"

    def pace(self) -> list[str]:
        """Return the rate, the values shown beside it, and the time left."""
        rate = self._task.speed
        parts = [f"{_number(rate)} {self.unit}/s"] if rate else []
        parts += self._values()
        left = (self.total - self.done) / rate if rate and self.total is not None else math.inf
        return parts + ([f"ETA {duration(left)}"] if math.isfinite(left) else [])

    def finished(self) -> str:
        """Return a line with the units, the time and the mean rate."""
        now = self._tasks.get_time()
        before, since = self._first or (0, now)
        # The first units may be those of an earlier run: the rate is that of the others, if they took most of the time.
        taken, done = now - self._started, self.done - before
        rate = f" ({_number(done / (now - since))} {self.unit}/s)" if done and now - since > 0.9 * taken else ""
        return ", ".join([f"{self.title}: {self.done:,} {self.unit} in {duration(taken)}{rate}", *self._values()])

    def _values(self) -> list[str]:
        return [
            f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
            for name, value in self.shown.items()
        ]


@dataclass
class Reporting:
    """The reporter of a command: it draws on a ``console``, or prints a line every ``interval`` seconds."""

    title: str
    say: Callable[[str], None]
    warn: Callable[[str], None]
    console: Console | None = None
    quiet: bool = False
    interval: float = 5.0
    verbose: bool = False
    clock: Callable[[], float] = time.monotonic
    _tasks: "Tasks | None" = None
    _printed: dict[Work, float] = field(default_factory=dict)  # what is open, and when a line of it was printed
    _live: Live | None = None

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> Iterator[Work]:
        """Show a piece of work; when it ends well a line stays, unless it was inside another one."""
        from rich.progress import Progress as Tasks

        stop_spinner()
        self._tasks = self._tasks or Tasks(auto_refresh=False, get_time=self.clock)
        work = Work(self._tasks, title, total, unit, self._advanced)
        self._printed[work] = self.clock()
        if self._live is None and self.console is not None and not self.quiet:
            # stdout goes to stderr already, see ``kdcli.cli.ui.reporting``.
            self._live = Live(console=self.console, get_renderable=self._panel, transient=True, redirect_stdout=False)
            self._live.start()
        try:
            yield work
        finally:
            del self._printed[work]
            if self._live is not None and not self._printed:
                self._live.stop()
                self._live = None
        if not self._printed and work.done:
            self.info(work.finished())

    def info(self, message: str) -> None:
        """Print a line."""
        if not self.quiet:
            self.say(message)

    def metrics(self, stage: str, step: int, **values: float) -> None:
        """Print a point of a learning curve, if asked to; the run keeps them all."""
        if self.verbose:
            self.info(f"{stage} {step}: " + ", ".join(f"{name} {value:.6g}" for name, value in values.items()))

    def _advanced(self, work: Work) -> None:
        if self.console is not None or self.quiet:
            return
        now = self.clock()
        if now - self._printed[work] >= self.interval:
            self._printed[work] = now
            self.say(", ".join([f"{work.title}: {work.counted()}", *work.pace()]))

    def _panel(self) -> RenderableType:
        from rich.columns import Columns
        from rich.progress_bar import ProgressBar

        assert self.console is not None
        width = self.console.width - MARGIN
        parts: list[RenderableType] = []
        for work in list(self._printed):
            bar = ProgressBar(work.total, work.done, 24 if width > 90 else 10, pulse=work.total is None)
            grid = Table.grid(padding=(0, 1))
            grid.add_row(Text(work.title), bar, Text(work.counted(), no_wrap=True))
            # In columns a figure stays on one line with its name and unit.
            parts += [grid, Columns([Text(part, "cyan") for part in work.pace()], padding=(0, 2))]
        return Panel(Group(*parts), title=Text(self.title), title_align="left", border_style="dim", width=width)


def duration(seconds: float) -> str:
    """Write seconds as ``8.2 s``, ``3:07`` or ``1:02:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
