"""Resumable parts, and the processes that make them: those of this machine, and those that ``torchrun`` has started.

Work is cut into parts that depend only on the inputs, the options, the seed and their number. Each finished part is a
file, with its SHA-256 beside it: a damaged part is made again. A killed run resumes at the first missing part. The
processes of a ``torchrun`` share the parts of one folder, and the main process assembles them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, nullcontext, suppress
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError
from kdcli.files import alone, atomic, check_replaceable, is_running, remove, sha256

MakePart = Callable[[int, Path], None]  # write part ``i`` to the path; with more than one worker it must be picklable

T = TypeVar("T")

RECORD = "fingerprint.json"
"""The file that says what the work in a folder depends on: kd has made the folder."""
_LOCK_SECONDS = 1.0
_POLL_SECONDS = 0.05


class Parts:
    """The parts of one piece of work, in a folder of their own; a context manager, for one launch at a time.

    Args:
        folder: Where the parts lie; ``assemble`` removes it.
        fingerprint: All that the parts depend on, as JSON values. Parts with another fingerprint are removed.
        suffix: The file name suffix of a part.
        more: Patterns of the files that the work itself writes into the folder.
        resume: Whether parts that are there are used.
        reporter: Gets the reason why parts are not used, and the progress.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        *,
        suffix: str = ".parquet",
        more: Sequence[str] = (),
        resume: bool = True,
        reporter: Reporter | None = None,
    ) -> None:
        self.folder, self.suffix = folder, suffix
        self.fingerprint, self.resume = fingerprint, resume
        self.reporter = reporter or QuietReporter()
        self._made = (f"[0-9]*{suffix}", f"[0-9]*{suffix}.sha256", "launch.json", "ready-*", *more)
        self._launch = folder / "launch.json"
        self._lock = ExitStack()

    def __enter__(self) -> Parts:
        if is_main_process():
            what = "another process is at this work already"
            self._lock.enter_context(alone(self.folder, what, seconds=_LOCK_SECONDS))
            try:
                self._prepare_folder()
            except BaseException:
                self.__exit__()
                raise
        else:
            _wait(self._is_open)
        return self

    def __exit__(self, *_: object) -> None:
        if is_main_process():
            self._launch.unlink(missing_ok=True)
            self._lock.close()

    def path(self, part: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"{part:06d}{self.suffix}"

    def finished(self) -> list[int]:
        """Return the numbers of the finished parts, whichever process made them, in ascending order."""
        names = (re.fullmatch(rf"(\d{{6,}}){re.escape(self.suffix)}", path.name) for path in self.folder.glob("*"))
        return sorted(int(name[1]) for name in names if name)

    def make_one(self, part: int, make_part: MakePart) -> None:
        """Make a part in this process, unless it is finished."""
        _make_one(make_part, part, self.path(part))

    def make(
        self, sizes: Sequence[int], make_part: MakePart, *, title: str, unit: str = "rows", workers: int | Executor = 1
    ) -> None:
        """Make the missing parts of this process's share, each to a temporary file that is renamed when it is whole.

        ``sizes`` are the units in each part, for the progress bar. ``workers`` is how many processes make parts (with 1
        they are made here), or the ``processes`` to use; one that dies is a ``KdError``.
        """
        share = range(process_index(), len(sizes), process_count())
        missing = [part for part in share if not self.path(part).exists()]
        with self.reporter.progress(title, sum(sizes[part] for part in share), unit) as progress:
            progress.advance(sum(sizes[part] for part in share) - sum(sizes[part] for part in missing))
            if workers == 1 or len(missing) < 2:
                for part in missing:
                    self.make_one(part, make_part)
                    progress.advance(sizes[part])
                return
            with nullcontext(workers) if isinstance(workers, Executor) else processes(workers) as pool:
                running = {pool.submit(_make_one, make_part, part, self.path(part)): part for part in missing}
                try:
                    for future in as_completed(running):
                        future.result()
                        progress.advance(sizes[running[future]])
                except BrokenProcessPool:
                    hint = "the memory may be too small for so many processes; a new start with fewer resumes here"
                    raise KdError("a worker process died", file=self.folder, hint=hint) from None
                finally:
                    for future in running:
                        future.cancel()

    def wait(self, count: int) -> None:
        """Wait until the first ``count`` parts are finished; a missing one that no process makes is a ``KdError``."""
        missing = [part for part in range(count) if not self.path(part).exists()]
        if missing and process_count() == 1:
            raise KdError(f"part {missing[0]} has not been made", file=self.folder)
        _wait(lambda: all(self.path(part).exists() for part in missing))

    def assemble(self, count: int, assemble: Callable[[list[Path]], T]) -> T | None:
        """Let the main process put the first ``count`` parts together and remove the folder; the others wait for it.

        They get None. A part that is missing, or a main process that has failed, is a ``KdError``.
        """
        if not is_main_process():
            self._ready(process_index()).touch()
            _wait(lambda: not (self.folder / RECORD).exists() or not self._is_open())
            if (self.folder / RECORD).exists():
                raise KdError("the main process has stopped", file=self.folder, hint="run it again: it resumes")
            return None
        self.wait(count)
        # The others need the folder until they are here, too.
        _wait(lambda: all(self._ready(index).exists() for index in range(1, process_count())))
        result = assemble([self.path(part) for part in range(count)])
        remove(self.folder, (RECORD, *self._made))
        return result

    def _prepare_folder(self) -> None:
        self._launch.unlink(missing_ok=True)
        if claim_folder(self.folder, self.fingerprint, self._made, resume=self.resume, reporter=self.reporter):
            for part in self.finished():
                if not _is_whole(self.path(part)):
                    self.reporter.warn(f"part {part} is damaged: it is made again")
                    self.path(part).unlink()
            for index in range(1, process_count()):
                self._ready(index).unlink(missing_ok=True)
        with atomic(self._launch) as temporary:
            temporary.write_text(json.dumps([_launch_name(), socket.gethostname(), os.getpid()]), "utf-8")

    def _ready(self, index: int) -> Path:
        return self.folder / f"ready-{index}"

    def _is_open(self) -> bool:
        """Return whether the main process of this launch has prepared the folder and still works."""
        try:
            launch, host, process = json.loads(self._launch.read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return launch == _launch_name() and (host != socket.gethostname() or is_running(process))


def claim_folder(
    folder: Path, fingerprint: Mapping[str, Any], made: Sequence[str], *, resume: bool, reporter: Reporter
) -> bool:
    """Prepare the folder of a piece of work: keep what is there, or empty it and record the fingerprint.

    Return whether the work resumes with what is there: only if all that it depends on is the same; else the reporter
    gets the reason. ``made`` are patterns of the files that the work makes.

    Raises:
        DataError: The folder would be emptied, and holds a file that kd did not put there.
    """
    record, now, found = folder / RECORD, json.loads(json.dumps(fingerprint)), None
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        found = dict(json.loads(record.read_text("utf-8")))
    if found == now and resume:
        return True
    if resume and found is not None:
        for key in {**found, **now}:
            if found.get(key) != now.get(key):
                reporter.warn(f"{key} changed ({found.get(key)} -> {now.get(key)}): starting again")
    elif resume and record.exists():
        reporter.warn("the record of what the work depends on is damaged: starting again")
    if folder.exists():
        patterns = (RECORD, *made) if record.exists() else ()
        check_replaceable(folder, patterns)
        remove(folder, patterns)
    folder.mkdir(parents=True)
    with atomic(record) as temporary:
        temporary.write_text(json.dumps(now), "utf-8")
    return False


def _launch_name() -> str:
    """Return what the processes of one launch have in common."""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")
    return " ".join(os.environ.get(name, "") for name in names)


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(_POLL_SECONDS)


def _make_one(make_part: MakePart, part: int, path: Path) -> None:
    if path.exists():
        return
    with atomic(path) as temporary:
        make_part(part, temporary)
        # Before the part is there, or a kill in between would leave one without.
        _checksum(path).write_text(sha256(temporary), "utf-8")


def _checksum(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _is_whole(path: Path) -> bool:
    try:
        return _checksum(path).read_text("utf-8") == sha256(path)
    except (OSError, ValueError):
        return False


def is_main_process() -> bool:
    """Return whether this is the only process of a launch, or the first one that ``torchrun`` has started."""
    return process_index() == 0


def process_index() -> int:
    """Return the number of this process among those of its launch."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Return how many processes ``torchrun`` or ``accelerate launch`` has started (1 without them)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of processes that end with this one; it can serve several calls of ``Parts.make``."""
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
