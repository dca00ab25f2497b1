"""What a process says while it works for another one: it sends it, and the other hands it to its reporter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from kdcli.api import Reporter

Send = Callable[[str, tuple[Any, ...], dict[str, Any]], Any]
"""Takes the name of a reporter's method, or of what happens to a bar, with its arguments."""


@dataclass(frozen=True)
class Reports:
    """A reporter, and a progress, that sends everything on; without ``live`` no progress, which would come too late."""

    send: Send
    live: bool = True

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> Iterator[Reports]:
        """Open a bar at the receiver."""
        self._send_live("open", title, total, unit)
        try:
            yield self
        finally:
            self._send_live("close")

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        """Move the innermost bar."""
        self._send_live("advance", steps, **shown)

    def info(self, message: str) -> None:
        """Send a message."""
        self.send("info", (message,), {})

    def warn(self, message: str) -> None:
        """Send a warning."""
        self.send("warn", (message,), {})

    def metrics(self, stage: str, step: int, **values: float) -> None:
        """Send a point of a learning curve."""
        self.send("metrics", (stage, step), values)

    def _send_live(self, kind: str, *values: Any, **named: Any) -> None:
        if self.live:
            self.send(kind, values, named)


@dataclass
class Receiver:
    """Hands what processes send to a reporter; each has bars of its own. At the end of the context they are closed."""

    reporter: Reporter
    _bars: dict[int, list[tuple[ExitStack, Any]]] = field(default_factory=lambda: defaultdict(list))

    def take(self, sender: int, kind: str, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Do what a process has sent."""
        bars = self._bars[sender]
        if kind == "open":
            bar = ExitStack()
            bars.append((bar, bar.enter_context(self.reporter.progress(*values))))
        elif kind == "close":
            bars.pop()[0].close()
        elif kind == "advance":
            bars[-1][1].advance(*values, **named)
        else:
            getattr(self.reporter, kind)(*values, **named)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        for bars in self._bars.values():
            while bars:
                bars.pop()[0].close()
