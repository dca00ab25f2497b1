"""Resumable parts: the one mechanism of all long row work.

Work is cut into parts that depend only on the inputs, the options, the seed and their own number. Each finished
part is a file. A killed run goes on at the first part that is missing; several processes (shards) share the parts
of one folder without talking to each other, and whoever finds them all there puts them together.

Beside each part lies an empty file whose name ends in the part's SHA-256. A part without one that fits was damaged
from outside, and is made again. Two shards that make the same part at once each leave their own, so that no order of
their writes makes a whole part look damaged.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError, UsageError
from kdcli.files import atomic, sha256

MakePart = Callable[[int, Path], None]
"""Write part ``i`` to the path given; with more than one worker it must be picklable."""

_MOMENT = 0.1
"""Seconds for which a lock may be held by one who only looks whether it is."""


@dataclass(frozen=True)
class Shard:
    """One of ``count`` processes that share the work: it does the parts ``index``, ``index + count``, ..."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read ``I/N`` (counted from 0), or take ``RANK`` and ``WORLD_SIZE`` from the environment if None.

        Raises:
            UsageError: The text is no such thing.
        """
        if text is None:
            text = f"{os.environ.get('RANK', '0')}/{os.environ.get('WORLD_SIZE', '1')}"
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise UsageError(f"a shard is I/N with 0 <= I < N, not {text!r}", hint="for example --shard 0/2")
        return cls(int(match[1]), int(match[2]))


ALONE = Shard()


class Parts:
    """The parts of one piece of work, in a folder of their own; a context manager that holds this shard's lock.

    Args:
        folder: Where the parts lie; it is removed when they have been put together.
        fingerprint: All that the parts depend on, as JSON values. Parts made under another one are thrown away.
        suffix: The file name suffix of a part.
        shard: This process's share.
        resume: Use the parts that are there. With False they are thrown away, unless another shard is at work: then
            they are those of this launch.
        reporter: Told why parts are thrown away, and of the progress.

    Raises:
        KdError: Another process works on the same shard, or on other parts in the same folder.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        *,
        suffix: str,
        shard: Shard = ALONE,
        resume: bool = True,
        reporter: Reporter | None = None,
    ) -> None:
        self.folder = folder
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self.suffix = suffix
        self.shard = shard
        self.resume = resume
        self.reporter = reporter or QuietReporter()
        self._own = FileLock(folder.with_name(f".{folder.name}.{shard.index}-of-{shard.count}.lock"))
        self._all = FileLock(folder.with_name(f".{folder.name}.lock"))

    def __enter__(self) -> Parts:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._acquire_own()
        self._own.release()  # whoever holds it has taken the folder, and does not wait for it: ``_others_work`` asks
        with self._all:
            self._acquire_own()
            try:
                self._take_folder()
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own.is_locked:
            # Removed while it is held: nobody waits for it.
            Path(self._own.lock_file).unlink(missing_ok=True)
            self._own.release()

    def path(self, part: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"{part:06d}{self.suffix}"

    def missing(self, count: int) -> list[int]:
        """Return which of the first ``count`` parts are not finished yet; none when they have been put together."""
        return [part for part in range(count) if not self.path(part).exists()] if self.folder.exists() else []

    def there(self) -> list[int]:
        """Return the numbers of the parts that are finished, whoever made them, in ascending order."""
        names = (re.fullmatch(rf"(\d{{6,}}){re.escape(self.suffix)}", path.name) for path in self.folder.glob("*"))
        return sorted(int(name[1]) for name in names if name)

    def make_one(self, part: int, make_part: MakePart) -> None:
        """Make a part here, unless it is there: for work that ends one does not know after how many parts.

        It comes to nothing where another shard puts the parts together without this one.
        """
        _make_one(make_part, part, self.path(part))

    def is_last(self) -> bool:
        """Return whether no other shard is at work. If one is, this one is not from here on, and makes no more parts.

        So one of those that ask at the same time is the last, and can do what is left over.
        """
        with self._all:
            if self.folder.exists() and not self._others_work():
                return True
            self.__exit__(None, None, None)
            return False

    def make(
        self,
        sizes: Sequence[int],
        make_part: MakePart,
        *,
        title: str,
        unit: str = "rows",
        workers: int | Executor = 1,
        of_all: bool = False,
    ) -> None:
        """Make this shard's missing parts, each to a temporary file that is renamed when it is whole.

        Args:
            sizes: The number of units in each part, for the progress bar.
            make_part: Called with a part's number and the path to write.
            title: What the progress bar says.
            unit: What is counted.
            workers: How many processes make parts (with 1 they are made here), or the ``processes`` to use.
            of_all: Go on with the other shards' parts that are missing then: for work of which each shard needs
                all, so that none has to wait for another.

        Raises:
            KdError: A worker process died.
        """
        mine = range(self.shard.index, len(sizes), self.shard.count)
        wanted = [*mine, *(part for part in range(len(sizes)) if part not in mine)] if of_all else list(mine)
        todo = [part for part in wanted if not self.path(part).exists()]
        with self.reporter.progress(title, sum(sizes[part] for part in wanted), unit) as progress:
            progress.advance(sum(sizes[part] for part in wanted) - sum(sizes[part] for part in todo))
            if workers == 1 or len(todo) < 2:
                for part in todo:
                    self.make_one(part, make_part)
                    progress.advance(sizes[part])
                return
            with nullcontext(workers) if isinstance(workers, Executor) else processes(workers) as pool:
                running = {pool.submit(_make_one, make_part, part, self.path(part)): part for part in todo}
                try:
                    for done in as_completed(running):
                        done.result()
                        progress.advance(sizes[running[done]])
                except BrokenProcessPool:
                    hint = (
                        "perhaps the memory is too small for so many: start again with fewer, and it goes on from here"
                    )
                    raise KdError("a worker process died", hint=hint) from None
                finally:
                    for waiting in running:
                        waiting.cancel()

    def assemble(self, count: int, assemble: Callable[[list[Path]], None]) -> bool:
        """Put the parts together if all ``count`` are there, then remove them.

        Returns:
            Whether this process did it; False when parts are missing still, or another shard has done it.
        """
        with self._all:
            there = self.folder.exists()
            if there and self.missing(count):
                return False
            if there:
                assemble([self.path(part) for part in range(count)])
                # Out of the way first: a shard may be writing a part that turned out not to be needed.
                shutil.rmtree(self.folder.rename(self.folder.with_name(f".{os.getpid()}.{self.folder.name}")))
            # Who waits for this lock finds no folder, so that the lock may go too.
            Path(self._all.lock_file).unlink(missing_ok=True)
            return there

    def _acquire_own(self) -> None:
        try:
            self._own.acquire(timeout=_MOMENT)
        except Timeout:
            what = f"shard {self.shard.index}/{self.shard.count} of this work is running already"
            raise KdError(what, file=self.folder, hint="wait for it, or stop it first") from None

    def _take_folder(self) -> None:
        record = self.folder / "fingerprint.json"
        found = _read(record)
        others = self.folder.exists() and self._others_work()
        if found == self.fingerprint and (self.resume or others):
            self._remove_damaged()
            return
        before, now = found or {}, self.fingerprint
        changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        if others:
            what = f"another process makes parts here with other settings ({', '.join(changed)})"
            raise KdError(what, file=self.folder, hint="start all shards with the same settings")
        if found is not None and self.resume:
            for key in changed:
                self.reporter.warn(f"{key} changed ({before.get(key)} -> {now.get(key)}): starting again")
        elif record.exists() and self.resume:
            self.reporter.warn("the record of what the parts depend on is damaged: starting again")
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        with atomic(record) as temporary:
            temporary.write_text(json.dumps(now), "utf-8")

    def _remove_damaged(self) -> None:
        for part in self.there():
            if not _is_whole(self.path(part)):
                self.reporter.warn(f"part {part} is damaged: it is made again")
                self.path(part).unlink()

    def _others_work(self) -> bool:
        for path in self.folder.parent.glob(f".{glob.escape(self.folder.name)}.*-of-*.lock"):
            if path != Path(self._own.lock_file):
                lock = FileLock(path)
                try:
                    lock.acquire(timeout=_MOMENT)
                except Timeout:
                    return True
                lock.release()
        return False


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of processes, started when they get work; it can serve several calls of ``Parts.make``."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_follow_parent)


def _make_one(make_part: MakePart, part: int, path: Path) -> None:
    if path.exists() or not path.parent.exists():  # another shard was faster
        return
    try:
        with atomic(path) as temporary:
            make_part(part, temporary)
            _witness(path, temporary).touch()  # before the part is there, or a kill in between would leave one without
    except Exception:
        if path.parent.exists():
            raise


def _witness(path: Path, content: Path) -> Path:
    """Return the empty file that says that a part at ``path`` with these bytes is whole."""
    return path.with_name(f"{path.name}.{sha256(content)}")


def _is_whole(path: Path) -> bool:
    try:
        return _witness(path, path).exists()
    except OSError:  # the disk cannot read it
        return False


def _read(record: Path) -> dict[str, Any] | None:
    """Read the fingerprint of the parts that are there, or None if it is not there or damaged."""
    try:
        return dict(json.loads(record.read_text("utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent process, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
