"""What shows progress and messages: on a terminal, through a pipe, or nowhere. ``kdcli.api`` hands it on."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """The progress of one piece of work."""

    def advance(self, steps: int = 1, **shown: float | str) -> None:
        """Count ``steps`` more units done; ``shown`` values (``loss=0.31``, ``best="0.912"``) stand beside the bar."""


class Reporter(Protocol):
    """Progress and messages for the user, on stderr."""

    def progress(self, title: str, total: int | None = None, unit: str = "rows") -> AbstractContextManager[Progress]:
        """Open a progress bar of ``total`` units (None: unknown)."""

    def info(self, message: str) -> None:
        """Print a message."""

    def warn(self, message: str) -> None:
        """Print a warning."""

    def metrics(self, stage: str, step: int, **values: float) -> None:
        """Record a point of a learning curve (``metrics.jsonl``)."""


class QuietReporter:
    """A silent reporter and progress: the default when ``kd`` is used from Python."""

    def progress(
        self, title: str, total: int | None = None, unit: str = "rows"
    ) -> AbstractContextManager[QuietReporter]:
        """Return itself as a progress that shows nothing."""
        return nullcontext(self)

    def info(self, *arguments: object, **values: object) -> None:
        """Do nothing."""

    advance = warn = metrics = info
