"""Resumable parts: work cut into parts that depend only on the inputs, the options, the seed and their number.

Each finished part is a file, with its SHA-256 beside it: a damaged part is made again. A killed run resumes at the
first missing part. An engine says where parts are made.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError
from kdcli.files import alone, check_replaceable, remove, sha256, write_text
from kdcli.parts.engine import (
    Engine,
    Loaded,
    LocalEngine,
    MakePart,
    PartFailed,
    checksum,
    in_turn,
    place,
    processes,
    usable_cores,
)

if TYPE_CHECKING:
    from kdcli.config.schema import Settings

__all__ = ["RECORD", "Engine", "Loaded", "LocalEngine", "Parts", "claim_folder", "engine_of", "in_turn"]
__all__ += ["is_main_process", "place", "process_count", "processes", "usable_cores"]

T = TypeVar("T")

RECORD = "fingerprint.json"
"""The file that says what the work in a folder depends on: kd has made the folder."""
_LOCK_SECONDS = 1.0
_EARLIER = ("launch.json", "ready-*")  # what earlier versions of kd wrote into a folder of parts


class Parts:
    """The parts of one piece of work, in a folder of their own; a context manager, for one launch at a time.

    The ``fingerprint`` is all that the parts depend on, as JSON values: those of another one are removed, and without
    ``resume`` all are. ``more`` are patterns of the files that the work itself writes into the folder.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        *,
        suffix: str = ".parquet",
        more: Sequence[str] = (),
        resume: bool = True,
        engine: "Engine | None" = None,
        reporter: Reporter = QuietReporter(),
    ) -> None:
        self.folder, self.suffix = folder, suffix
        self.engine = engine or LocalEngine()
        self.fingerprint, self.resume = fingerprint, resume
        self.reporter = reporter
        self._made = (f"[0-9]*{suffix}", f"[0-9]*{suffix}.sha256", *_EARLIER, *more)
        self._lock = ExitStack()
        if engine is None:
            self._lock.enter_context(self.engine)

    def __enter__(self) -> Self:
        if process_count() > 1:
            self.reporter.warn("one process of this launch makes the parts; several GPUs share them with --engine ray")
        what = "another process is at this work already"
        with ExitStack() as lock:
            lock.enter_context(alone(self.folder, what, seconds=_LOCK_SECONDS))
            if claim_folder(self.folder, self.fingerprint, self._made, resume=self.resume, reporter=self.reporter):
                for part in self.finished():
                    if not _is_whole(self.path(part)):
                        self.reporter.warn(f"part {part} is damaged: it is made again")
                        self.path(part).unlink()
            self._lock.push(lock.pop_all())
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def path(self, part: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"{part:06d}{self.suffix}"

    def finished(self) -> list[int]:
        """Return the numbers of the finished parts in ascending order."""
        names = (re.fullmatch(rf"(\d{{6,}}){re.escape(self.suffix)}", path.name) for path in self.folder.glob("*"))
        return sorted(int(name[1]) for name in names if name)

    def make(self, sizes: Sequence[int], make_part: MakePart, *, title: str, unit: str = "rows", **how: Any) -> None:
        """Make the missing parts, and show how far it is.

        ``sizes`` are the units in each part. ``how`` are ``read``, ``workers``, ``device`` and ``files`` of the engine.
        """
        missing = [part for part in range(len(sizes)) if not self.path(part).exists()]
        with self.reporter.progress(title, sum(sizes), unit) as progress:
            progress.advance(sum(sizes) - sum(sizes[part] for part in missing))
            for part in self.made(missing, sizes.__getitem__, make_part, unit, **how):
                progress.advance(sizes[part], **self.engine.shown)

    def made(
        self, parts: Iterable[int], size: Callable[[int], int], make_part: MakePart, unit: str = "rows", **how: Any
    ) -> Iterator[int]:
        """Make those of these parts that are missing, and yield the number of each as it is there.

        A part that has failed several times is a ``KdError`` that names its rows.
        """
        missing = {part: path for part in parts if not (path := self.path(part)).exists()}
        try:
            for part, _ in self.engine.make(make_part, missing, checked=True, **how):
                yield part
        except PartFailed as error:
            part, first = error.part, sum(map(size, range(error.part)))
            rows = f"{unit} {first + 1:,} to {first + size(part):,} (part {part})"
            raise KdError(f"{rows} failed several times: {error.last}", file=self.folder, hint=error.hint) from error

    def assemble(self, count: int, assemble: Callable[[list[Path]], T]) -> T:
        """Put the first ``count`` parts together, and remove the folder."""
        result = assemble([self.path(part) for part in range(count)])
        remove(self.folder, (RECORD, *self._made))
        return result


def claim_folder(
    folder: Path, fingerprint: Mapping[str, Any], made: Sequence[str], *, resume: bool, reporter: Reporter
) -> bool:
    """Prepare the folder of a piece of work: keep what is there, or empty it and record the fingerprint.

    Return whether the work resumes with what is there: only if all that it depends on is the same; else the reporter
    gets the reason. ``made`` are patterns of the files that the work makes; a folder with others is not emptied.
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
    write_text(record, json.dumps(now))
    return False


def _is_whole(path: Path) -> bool:
    try:
        return checksum(path).read_text("utf-8") == sha256(path)
    except (OSError, ValueError):
        return False


def process_count() -> int:
    """Return the number of processes that ``torchrun`` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_main_process() -> bool:
    """Return whether this is the only process of a launch, or the first one that ``torchrun`` has started."""
    return os.environ.get("RANK", "0") == "0"


def engine_of(settings: "Settings") -> Engine:
    """Return the engine that settings choose."""
    if settings.engine == "local":
        return LocalEngine()
    from kdcli.parts.ray_engine import RayEngine

    return RayEngine(settings.ray_address, settings.device)
