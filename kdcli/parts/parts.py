"""Resumable parts, and what the processes of ``torchrun`` have in common.

Work is cut into parts that depend only on the inputs, the options, the seed and their number. Each finished part is a
file, with its SHA-256 beside it: a damaged part is made again. A killed run resumes at the first missing part. The
processes of a ``torchrun`` share the parts of one folder, and the main process assembles them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError
from kdcli.files import alone, atomic, check_replaceable, is_running, remove, sha256
from kdcli.parts.engine import Engine, LocalEngine, MakePart, PartFailed, checksum

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
        engine: Makes the parts; by default this process.
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
        engine: Engine | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.folder, self.suffix = folder, suffix
        self.engine = engine or LocalEngine()
        self.fingerprint, self.resume = fingerprint, resume
        self.reporter = reporter or QuietReporter()
        self._made = (f"[0-9]*{suffix}", f"[0-9]*{suffix}.sha256", "launch.json", "ready-*", *more)
        self._launch = folder / "launch.json"
        self._lock = ExitStack()
        if engine is None:
            self._lock.enter_context(self.engine)

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

    def make(self, sizes: Sequence[int], make_part: MakePart, *, title: str, unit: str = "rows", **how: Any) -> None:
        """Make the missing parts of this process's share, and show how far it is.

        ``sizes`` are the units in each part. ``how`` are ``read``, ``workers``, ``device`` and ``files`` of the engine.
        """
        share = range(process_index(), len(sizes), process_count())
        missing = [part for part in share if not self.path(part).exists()]
        with self.reporter.progress(title, sum(sizes[part] for part in share), unit) as progress:
            progress.advance(sum(sizes[part] for part in share) - sum(sizes[part] for part in missing))
            for part in self.made(missing, sizes.__getitem__, make_part, unit, **how):
                progress.advance(sizes[part], **self.engine.shown)

    def made(
        self, parts: Iterable[int], size: Callable[[int], int], make_part: MakePart, unit: str = "rows", **how: Any
    ) -> Iterator[int]:
        """Make those of these parts that are missing, and yield the number of each as it is there.

        Raises:
            KdError: What ``make_part`` raises; a process has died; or a part has failed several times: names its rows.
        """
        missing = {part: path for part in parts if not (path := self.path(part)).exists()}
        try:
            for part, _ in self.engine.make(make_part, missing, checked=True, **how):
                yield part
        except PartFailed as error:
            part = error.part
            first = sum(map(size, range(part)))
            rows = f"{unit} {first + 1:,} to {first + size(part):,} (part {part})"
            what = f"{rows} failed several times: {error.last}"
            raise KdError(what, file=self.folder, hint=error.hint) from error

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


def _is_whole(path: Path) -> bool:
    try:
        return checksum(path).read_text("utf-8") == sha256(path)
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
