"""Where parts are made: the engine of this machine's processes; ``ray_engine`` is that of a cluster.

A function makes a part: it is called with the part's number, the path to write, and what was read for the part. To be
called in another process it is pickled, with a model in it as ``Loaded``.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from kdcli.errors import KdError
from kdcli.files import atomic, sha256

if TYPE_CHECKING:
    from kdcli.parts.ray_engine import RayEngine

Engine: TypeAlias = "LocalEngine | RayEngine"
MakePart = Callable[..., None]
"""Writes part ``i`` to the path: ``make(i, path)``, or with ``read`` ``make(i, path, data)``."""
Read = Callable[[int], Any]  # reads here what a part is made of; it is called once a part, in the order of the parts

T = TypeVar("T")

_AHEAD = 2
"""Parts that are read for each process, so that it does not wait for the next one; more would fill the memory."""
_places: dict[Path, Path] = {}
"""Where this process finds the files and folders of another machine, by their paths there."""


class PartFailed(Exception):
    """A part failed wherever it was tried: its number, and what was raised last."""


class LocalEngine:
    """Makes parts in this process, or in several of this machine; a context manager, at whose end these end."""

    width = 1  # how many parts are made at once, about

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}  # values for the progress
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Make sure that it can work."""

    def stop(self) -> None:
        """End what ``start`` began."""

    def device(self, own: str) -> str:
        """Return the device that parts are made on, where the one of this process is ``own``."""
        return own

    def make(
        self,
        make: MakePart,
        parts: Mapping[int, Path],
        *,
        read: Read | None = None,
        workers: int = 1,
        device: str = "cpu",
        files: Sequence[Path] = (),
    ) -> Iterator[int]:
        """Make parts, each whole at its path, and yield their numbers as they come.

        They are made here in order, or with more ``workers`` in as many processes. Another engine makes them on a
        ``device`` of another machine, to which it sends the ``files`` and folders that ``Loaded`` models read.

        Raises:
            KdError: What the function raises; or a process has died.
            PartFailed: A part has failed several times.
        """
        if workers == 1 or len(parts) < 2:
            for part, path in parts.items():
                make_one(make, part, path, *data_of(part, read))
                yield part
            return
        pool = self._pool = self._pool or processes(workers)
        todo, running = deque(parts), dict[Future[None], int]()
        try:
            while todo or running:
                while todo and len(running) < _AHEAD * workers:
                    part = todo.popleft()
                    running[pool.submit(make_one, make, part, parts[part], *data_of(part, read))] = part
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    yield running.pop(future)
        except BrokenProcessPool:
            hint = "the memory may be too small for so many processes; a new start with fewer resumes here"
            raise KdError("a worker process died", file=next(iter(parts.values())).parent, hint=hint) from None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def in_turn(data: Iterable[T]) -> Callable[[int], T]:
    """Return what reads the data of a part: asked for ascending numbers, it passes over those in between."""
    numbered = enumerate(data)
    return lambda part: next(one for number, one in numbered if number == part)


def data_of(part: int, read: Read | None) -> tuple[Any, ...]:
    """Return what the function that makes a part is called with, beside its number and path."""
    return () if read is None else (read(part),)


def make_one(make: MakePart, part: int, path: Path, *data: Any) -> None:
    """Make a part in this process, unless it is there: whole or not at all, with its checksum beside it."""
    if path.exists():
        return
    with atomic(path) as temporary:
        make(part, temporary, *data)
        # Before the part is there, or a kill in between would leave one without.
        checksum(path).write_text(sha256(temporary), "utf-8")


def checksum(path: Path) -> Path:
    """Return the file that holds a part's SHA-256."""
    return path.with_name(f"{path.name}.sha256")


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """What ``function(*arguments)`` has loaded, such as a model; another process that unpickles it loads it again.

    ``files`` are the files and folders that this reads, on another machine their copies.
    """

    value: T
    function: Callable[..., T]
    arguments: tuple[Any, ...]
    files: tuple[Path, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self.function, self.arguments)


def _load(function: Callable[..., T], arguments: tuple[Any, ...]) -> Loaded[T]:
    return Loaded(function(*(place(one) if isinstance(one, Path) else one for one in arguments)), function, arguments)


def place(path: str | Path) -> Path:
    """Return where a file or folder of the driver lies on this machine."""
    return _places.get(Path(path), Path(path))


@contextmanager
def places(found: Mapping[Path, Path]) -> Iterator[None]:
    """Say where the files of the driver are, while what reads them is unpickled."""
    _places.update(found)
    try:
        yield
    finally:
        _places.clear()


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of processes that end with this one."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=follow_parent)


def follow_parent() -> None:
    """Leave Ctrl-C to the parent process, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
