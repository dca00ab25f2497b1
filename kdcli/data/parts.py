"""Resumable parts: the one mechanism of all long row work.

Work is cut into parts that depend only on the inputs, the options, the seed and their own number. Each finished
part is a file. A killed run goes on at the first part that is missing; several processes (shards) share the parts
of one folder without talking to each other, and whoever finds them all there puts them together.
"""

from __future__ import annotations

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
from kdcli.data.files import atomic
from kdcli.errors import KdError, UsageError

MakePart = Callable[[int, Path], None]
"""Write part ``i`` to the path given; with more than one worker it must be picklable."""


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
        reporter: Reporter | None = None,
    ) -> None:
        self.folder = folder
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self.suffix = suffix
        self.shard = shard
        self.reporter = reporter or QuietReporter()
        self._own = FileLock(folder.with_name(f".{folder.name}.{shard.index}-of-{shard.count}.lock"))
        self._all = FileLock(folder.with_name(f".{folder.name}.lock"))

    def __enter__(self) -> Parts:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._own.acquire(timeout=0)
        except Timeout:
            what = f"shard {self.shard.index}/{self.shard.count} of this work is running already"
            raise KdError(what, file=self.folder, hint="wait for it, or stop it first") from None
        try:
            with self._all:
                self._take_folder()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Removed while it is held: nobody waits for it.
        Path(self._own.lock_file).unlink(missing_ok=True)
        self._own.release()

    def path(self, part: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"{part:06d}{self.suffix}"

    def missing(self, count: int) -> list[int]:
        """Return which of the first ``count`` parts are not finished yet."""
        return [part for part in range(count) if not self.path(part).exists()]

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
                    _make_one(make_part, part, self.path(part))
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
                shutil.rmtree(self.folder)
            # Who waits for this lock finds no folder, so that the lock may go too.
            Path(self._all.lock_file).unlink(missing_ok=True)
            return there

    def _take_folder(self) -> None:
        record = self.folder / "fingerprint.json"
        found = json.loads(record.read_text("utf-8")) if record.exists() else None
        if found == self.fingerprint:
            return
        if found is not None:
            changed = [key for key in {**found, **self.fingerprint} if found.get(key) != self.fingerprint.get(key)]
            if self._others_work():
                what = f"another process makes parts here with other settings ({', '.join(changed)})"
                raise KdError(what, file=self.folder, hint="start all shards with the same settings")
            for key in changed:
                self.reporter.warn(f"{key} changed ({found.get(key)} -> {self.fingerprint.get(key)}): starting again")
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        with atomic(record) as temporary:
            temporary.write_text(json.dumps(self.fingerprint), "utf-8")

    def _others_work(self) -> bool:
        for path in self.folder.parent.glob(f".{self.folder.name}.*-of-*.lock"):
            if path != Path(self._own.lock_file):
                lock = FileLock(path)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    return True
                lock.release()
        return False


def processes(count: int) -> ProcessPoolExecutor:
    """Return a pool of processes, started when they get work; it can serve several calls of ``Parts.make``."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_follow_parent)


def _make_one(make_part: MakePart, part: int, path: Path) -> None:
    if path.exists():  # another shard was faster
        return
    with atomic(path) as temporary:
        make_part(part, temporary)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent process, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
