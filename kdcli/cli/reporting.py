"""Progress: a live panel on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.panel import Panel

    from kdcli.run.tracking import Track

WINDOW = 30.0
"""Seconds that the shown rate looks back."""
AT_ONCE = 0.05
"""What is reported within so many seconds of the start was done before it."""


class Work:
    """One piece of work: how far it is, how fast it goes and when it will be done.

    Args:
        title: What it is called.
        total: The number of units, None where nobody knows.
        unit: What is counted.
        advanced: Called after each advance.
        clock: Seconds.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        unit: str,
        *,
        advanced: Callable[[Work], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self.shown: dict[str, float | str] = {}
        self._advanced = advanced
        self._clock = clock
        self._first = self._started = (clock(), 0)
        self._marks = deque([self._first])

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        """Count ``steps`` more units done."""
        now = self._clock()
        self.done += steps
        # Replaced, not changed: the thread that draws reads it meanwhile.
        self.shown = {**self.shown, **shown}
        if self.done == steps and now - self._started[0] < AT_ONCE:
            self._first = (now, self.done)
            self._marks = deque([self._first])
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, self.done))
        while len(self._marks) > 1 and now - self._marks[1][0] > WINDOW:
            self._marks.popleft()
        self._advanced(self)

    @property
    def rate(self) -> float:
        """Units a second over the last half minute; 0 before there is anything to tell."""
        then, done = self._marks[0]
        seconds = self._clock() - then
        return (self.done - done) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds to the end at this rate; infinite where nobody knows."""
        return (self.total - self.done) / self.rate if self.total is not None and self.rate > 0 else math.inf

    def counted(self) -> str:
        """Return what is done: ``12,800/67,349 rows (19 %)``."""
        if self.total is None:
            return f"{self.done:,} {self.unit}"
        share = f" ({math.floor(100 * self.done / self.total)} %)" if self.total else ""
        return f"{self.done:,}/{self.total:,} {self.unit}{share}"

    def going(self) -> list[str]:
        """Return how it goes: the rate, what is shown beside it, the time left."""
        parts = [f"{_number(self.rate)} {self.unit}/s"] if self.rate else []
        parts += self._shown()
        return parts + ([f"ETA {duration(self.seconds_left)}"] if math.isfinite(self.seconds_left) else [])

    def finished(self) -> str:
        """Return a line that says what was done in which time."""
        seconds = self._clock() - self._started[0]
        done = self.done - self._first[1]
        rate = f" ({_number(done / seconds)} {self.unit}/s)" if seconds > 0 and done else ""
        return ", ".join([f"{self.title}: {self.done:,} {self.unit} in {duration(seconds)}{rate}", *self._shown()])

    def _shown(self) -> list[str]:
        return [
            f"{name.replace('_', ' ')} {f'{value:.4g}' if isinstance(value, float) else value}"
            for name, value in self.shown.items()
        ]


class Reporting:
    """The reporter of a command (``kdcli.api.Reporter``).

    Args:
        title: What stands above the display.
        say: Prints a line.
        warn: Prints a warning.
        console: The terminal to draw on; None for plain lines.
        quiet: Warnings alone.
        interval: Seconds between plain lines; infinite for none but the last.
        verbose: Print each point of the learning curves.
        metrics: The JSON-lines file that they are appended to.
        track: Sends them to trackers too.
        clock: Seconds.
    """

    def __init__(
        self,
        title: str,
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
        console: Console | None = None,
        quiet: bool = False,
        interval: float = 5.0,
        verbose: bool = False,
        metrics: Path | None = None,
        track: Track | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.metrics_file = metrics
        self._track = track
        self._say = say
        self._warn = warn
        self._console = None if quiet else console
        self._quiet = quiet
        self._interval = interval
        self._verbose = verbose
        self._clock = clock
        self._open: list[Work] = []
        self._said: dict[int, float] = {}
        self._live: Live | None = None

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> Iterator[Work]:
        """Show a piece of work; when it ends well a line stays, unless it was inside another one."""
        work = Work(title, total, unit, advanced=self._advanced, clock=self._clock)
        self._open.append(work)
        self._said[id(work)] = self._clock()
        self._draw()
        try:
            yield work
        finally:
            self._open = [other for other in self._open if other is not work]
            del self._said[id(work)]
            self._draw()
        if not self._open and work.done:
            self.info(work.finished())

    def info(self, message: str) -> None:
        """Print a line."""
        if not self._quiet:
            self._say(message)

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._warn(message)

    def metrics(self, stage: str, step: int, **values: float) -> None:
        """Append a point to the metrics file, and send it to trackers; a value that is no number is null there."""
        if self._verbose:
            self.info(f"{stage} {step}: " + ", ".join(f"{name} {value:.6g}" for name, value in values.items()))
        if self._track is not None:
            self._track(stage, step, values)
        if self.metrics_file is None:
            return
        numbers = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"time": round(time.time(), 3), "stage": stage, "step": step, **numbers})
        self.metrics_file.parent.mkdir(parents=True, exist_ok=True)
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _advanced(self, work: Work) -> None:
        if self._console is not None or self._quiet:
            return
        now = self._clock()
        if now - self._said[id(work)] >= self._interval:
            self._said[id(work)] = now
            self._say(", ".join([f"{work.title}: {work.counted()}", *work.going()]))

    def _draw(self) -> None:
        """Start the display with the first piece of work, and end it with the last."""
        if self._open and self._console is not None and self._live is None:
            from rich.live import Live

            # What is printed to stdout is on its way to stderr already: see ``kdcli.cli.ui.reporting``.
            self._live = Live(console=self._console, get_renderable=self._panel, transient=True, redirect_stdout=False)
            self._live.start()
        elif not self._open and self._live is not None:
            self._live.stop()
            self._live = None

    def _panel(self) -> Panel:
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 1))
        for work in list(self._open):
            bar = ProgressBar(total=work.total, completed=work.done, width=24, pulse=work.total is None)
            grid.add_row(work.title, bar, work.counted())
            grid.add_row("", "", "  ".join(work.going()), style="cyan")
        return Panel(grid, title=self.title, title_align="left", border_style="dim", expand=False)


def duration(seconds: float) -> str:
    """Write seconds as ``8.2 s``, ``3:07`` or ``1:02:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
