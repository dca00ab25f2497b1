"""Resumable parts, and the processes that make them: those of this machine, and those that ``torchrun`` has started."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread


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
