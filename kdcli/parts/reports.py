"""What a process says while it works for another one: it sends it, and the other hands it to its reporter."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partialmethod
from typing import Any, Self

from kdcli.api import Reporter


@dataclass(frozen=True)
class Reports:
    """A reporter, and a progress, that sends the name of what is called, with the arguments; the innermost advances."""

    send: Callable[[str, tuple[Any, ...], dict[str, Any]], Any]

    @contextmanager
    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> Iterator[Self]:
        """Open a bar at the receiver."""
        self._call("open", title, total, unit)
        try:
            yield self
        finally:
            self._call("close")

    def _call(self, kind: str, *values: Any, **named: Any) -> None:
        self.send(kind, values, named)

    advance, info = partialmethod(_call, "advance"), partialmethod(_call, "info")
    warn, metrics = partialmethod(_call, "warn"), partialmethod(_call, "metrics")


@contextmanager
def receiving(reporter: Reporter | None) -> Iterator[Callable[..., None]]:
    """Give a function that hands to a reporter what processes send; each has bars of its own, in the end all closed."""
    bars = defaultdict[int, list[tuple[ExitStack, Any]]](list)

    def take(sender: int, kind: str, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        assert reporter
        if kind == "open":
            bar = ExitStack()
            bars[sender].append((bar, bar.enter_context(reporter.progress(*values))))
            every.push(bar)
        elif kind == "close":
            bars[sender].pop()[0].close()
        elif kind == "advance":
            bars[sender][-1][1].advance(*values, **named)
        else:
            getattr(reporter, kind)(*values, **named)

    with ExitStack() as every:
        yield take
