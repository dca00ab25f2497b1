"""Where parts are made: the engine of this machine's processes; ``ray_engine`` is that of a cluster.

A function makes a part: it is called with the part's number, the path to write, and what was read for the part. To be
called in another process it is pickled, with a model in it as ``Loaded``. A part is a file of rows, or the folder of a
model that is trained.
"""

import os
import signal
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, partialmethod
from multiprocessing import get_context, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from kdcli.api import Reporter
from kdcli.errors import KdError
from kdcli.files import atomic, sha256

if TYPE_CHECKING:
    from kdcli.parts.ray_engine import RayEngine

Engine: TypeAlias = "LocalEngine | RayEngine"
MakePart = Callable[..., Any]
"""Writes part ``i`` to a path: ``make(i, path)``, with ``read`` ``make(i, path, data)``; perhaps ``reporter=`` too."""
Read = Callable[[int], Any]  # reads here what a part is made of; it is called once a part, in the order of the parts

T = TypeVar("T")

_POLL_SECONDS = 0.1
_AHEAD = 2
"""Parts that are read for each process, so that it does not wait for the next one; more would fill the memory."""
_places: dict[Path, Path] = {}
"""Where this process finds the files and folders of another machine, by their paths there."""
_sent: SimpleQueue[Any]
"""Where a process of a pool puts what it has to say."""


class PartFailed(KdError):
    """A part failed wherever it was tried."""

    def __init__(self, part: int, path: Path, last: str) -> None:
        hint = "the other parts are kept: the same command resumes"
        super().__init__(f"{path.name} failed several times: {last}", file=path.parent, hint=hint)
        self.part, self.last = part, last


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


class LocalEngine:
    """Makes parts in this process, or in several of this machine; a context manager, at whose end these end."""

    width = 1  # how many parts are made at once, about

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}  # values for the progress
        self._pool: ProcessPoolExecutor | None = None
        self._sent: SimpleQueue[Any]

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
        keep: bool = False,
        checked: bool = False,
        reporter: Reporter | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Make parts at their paths, and yield their numbers as they come, each with what the function returned.

        Those that are ``checked`` are made whole or not at all, with checksums; a training has checkpoints of its own.

        They are made here in order, or with more ``workers`` in as many processes. Another engine makes them on a
        ``device`` of another machine, to which it sends the ``files`` and folders that ``Loaded`` models read, or with
        ``keep`` the function itself. The ``reporter`` gets what the function says to its argument of this name. A part
        that has failed several times is ``PartFailed``; what the function raises is raised.
        """
        make = partial(make_whole, make) if checked else make
        if workers == 1 or len(parts) < 2:
            how: dict[str, Any] = {"reporter": reporter} if reporter else {}
            for part, path in parts.items():
                yield part, make(part, path, *data_of(part, read), **how)
            return
        if not self._pool:
            self._sent = get_context("spawn").SimpleQueue()
            self._pool = processes(workers, self._sent)
        todo, running = deque(parts), dict[Future[Any], int]()
        seconds = _POLL_SECONDS if reporter else None
        try:
            with receiving(reporter) as take:
                while todo or running:
                    while todo and len(running) < _AHEAD * workers:
                        part = todo.popleft()
                        data = data_of(part, read)
                        running[self._pool.submit(_make, bool(reporter), make, part, parts[part], *data)] = part
                    done = wait(running, seconds, FIRST_COMPLETED).done
                    while not self._sent.empty():
                        take(*self._sent.get())
                    for future in done:
                        yield running.pop(future), future.result()
        except BrokenProcessPool:
            hint = "the memory may be too small for so many processes; a new start with fewer resumes here"
            raise KdError("a worker process died", file=next(iter(parts.values())).parent, hint=hint) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._pool:
            if kind:  # a training may still take hours; Python 3.14 has ``terminate_workers``
                for process in list((self._pool._processes or {}).values()):
                    process.terminate()
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def in_turn(data: Iterable[T]) -> Callable[[int], T]:
    """Return what reads the data of a part: asked for ascending numbers, it passes over those in between."""
    numbered = enumerate(data)
    return lambda part: next(one for number, one in numbered if number == part)


def data_of(part: int, read: Read | None) -> tuple[Any, ...]:
    """Return what the function that makes a part is called with, beside its number and path."""
    return () if read is None else (read(part),)


def make_whole(make: MakePart, part: int, path: Path, *data: Any, **how: Any) -> None:
    """Make a part, unless it is there: whole or not at all, with its checksum beside it."""
    if path.exists():
        return
    with atomic(path) as temporary:
        make(part, temporary, *data, **how)
        # Before the part is there, or a kill in between would leave one without.
        checksum(path).write_text(sha256(temporary), "utf-8")


def checksum(path: Path) -> Path:
    """Return the file that holds a part's SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def _make(reports: bool, make: MakePart, part: int, path: Path, *data: Any) -> Any:
    """Make a part in a process of a pool."""
    reporter = Reports(lambda *message: _sent.put((os.getpid(), *message)))
    return make(part, path, *data, **({"reporter": reporter} if reports else {}))


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


def set_places(found: Mapping[Path, Path]) -> None:
    """Say where the files of the driver are on this machine."""
    _places.clear()
    _places.update(found)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(count: int, sent: SimpleQueue[Any] | None = None) -> ProcessPoolExecutor:
    """Return a pool of processes that end with this one; ``sent`` is where they put what they have to say."""
    return ProcessPoolExecutor(count, _Context(), follow_parent, (sent,))


class _Process(SpawnProcess):
    """A process that does not run the user's script again, if that has no guard for ``__main__``."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        script: dict[str, Any] = vars(sys.modules["__main__"])
        file = script.get("__file__")
        if file is None or not Path(file).is_file() or "__main__" in Path(file).read_text("utf-8", "replace"):
            return SpawnProcess._Popen(process_obj)
        del script["__file__"]
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            script["__file__"] = file


class _Context(SpawnContext):
    Process = _Process


def follow_parent(sent: Any = None) -> None:
    """Leave Ctrl-C to the parent process, and end with it, even if it is killed."""
    global _sent
    _sent = sent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
