"""Peak memory of `kd teacher export` as the logits of many texts are put together, and of finding copies.

    python benchmarks/memory_export.py --rows 20000000

Makes parts as an export leaves them, one row in fifty a copy of another, and puts them together in a process of its
own: its peak resident memory is the figure; the bytes a row are without what it had after loading the libraries.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from kdcli.api import Task
from kdcli.teacher.export import PART_ROWS, assemble_logits, part_of
from kdcli.teacher.logits import read_logits
from kdcli.transfer.cleaning import new_texts

TARGET_GB = 2.0
TASK = Task("films", "single", ("0", "1"))
ORIGIN = {"labels": list(TASK.labels)}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def assemble(folder: Path, rows: int) -> tuple[float, float, float]:
    """Put the parts together; return the seconds, the peak of memory, and that at the beginning."""
    before, begin = peak(), time.perf_counter()
    assemble_logits(sorted(folder.glob("*.parquet")), folder / "logits.safetensors", ORIGIN)
    return time.perf_counter() - begin, peak(), before


def find_copies(folder: Path, rows: int) -> tuple[float, float, float]:
    hashes, none = draw(np.random.default_rng(1), rows, rows), np.zeros(0, np.uint64)
    before, begin = peak() - hashes.nbytes, time.perf_counter()
    new_texts(hashes, none, none)
    return time.perf_counter() - begin, peak(), before


def draw(random: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """Draw hashes, 2 % of which are among a few that come again."""
    again = np.random.default_rng(2).integers(0, 2**64 - 1, max(1, rows // 1000), np.uint64)
    hashes = random.integers(0, 2**64 - 1, count, np.uint64)
    few = random.integers(0, count, count // 50)
    hashes[few] = again[random.integers(0, len(again), len(few))]
    return hashes


def make(folder: Path, rows: int) -> None:
    random = np.random.default_rng(1)
    for number, begin in enumerate(range(0, rows, PART_ROWS)):
        hashes = np.unique(draw(random, min(PART_ROWS, rows - begin), rows))
        logits = random.normal(size=(len(hashes), 2)).astype(np.float32)
        part = part_of(hashes, logits, None)
        part.write_parquet(folder / f"{number:06d}.parquet", metadata={"batch_size": "64", "cut": "0"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--dir", help="where the files lie meanwhile")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        maker = spawn.Process(target=make, args=(folder, options.rows))
        maker.start()
        maker.join()
        for what in (assemble, find_copies):
            with spawn.Pool(1) as pool:
                seconds, most, before = pool.apply(what, (folder, options.rows))
            found = {"seconds": round(seconds), "peak_gb": round(most / 1e9, 2), "wanted_gb": TARGET_GB}
            print(what.__name__, json.dumps({**found, "bytes_row": round((most - before) / options.rows, 1)}))
        print("distinct", len(read_logits(folder / "logits.safetensors", TASK).hashes))


if __name__ == "__main__":
    main()
