"""How long the vectors of a vocabulary take, out of a large text file and out of a Parquet file.

    python benchmarks/word_vectors.py --words 2000000 --dimension 300 --wanted 20000

Makes a text file of random vectors (5 GB for these numbers, and 2.5 GB as Parquet), and reads it in turns by `for line
in file` and by `kd`. Every figure is of a process of its own, and of the fastest turn, which other work disturbed
least; the memory is the peak resident memory. The wanted words lie anywhere in the file, which is the worst case: in
real files frequent words come first.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source
from rich.console import Console
from rich.table import Table

from kdcli.student.vectors import read_vectors

ROUNDS = 5
POOL = 4096
PIECE = 10
CHUNK = 10_000


class Cost(NamedTuple):
    """What a task took: seconds, of the clock and of the processor, and peak resident megabytes."""

    seconds: float
    processor: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=2_000_000)
    parser.add_argument("--dimension", type=int, default=300)
    parser.add_argument("--wanted", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the files are made, and removed again")
    given = parser.parse_args()
    rows = np.random.default_rng(2).permutation(given.words)[: given.wanted]
    wanted = [word_of(row) for row in rows.tolist()]
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        source, output = Path(name, "vectors.txt"), Path(name, "vectors.parquet")
        alone(make, source, given.words, given.dimension)
        alone(make_parquet, output, given.words, given.dimension)
        alone(read_lines, source, "rb")  # into the page cache, where it fits
        turns = [
            {
                "binary": alone(read_lines, source, "rb"),
                "text": alone(read_lines, source, "r"),
                "kd": alone(read, source, wanted),
                "parquet": alone(read, output, wanted),
            }
            for _ in range(ROUNDS)
        ]
        costs = {task: min(turn[task] for turn in turns) for task in turns[0]}
        forget(output)
        costs["cold"] = alone(read, output, wanted)
        sizes = [path.stat().st_size / 1e9 for path in (source, output)]
    show(costs, f"{given.wanted:,} of {given.words:,} words, {given.dimension}-d, {sizes[0]:.2f} and {sizes[1]:.2f} GB")


def show(costs: dict[str, Cost], title: str) -> None:
    columns = ("", "seconds", "of the processor", "of lines, binary", "of lines, text", "peak MB", "needed")
    table = Table(*columns, title=title)
    names = {
        "binary": ("lines of the text file, open(path, 'rb')", ""),
        "text": ("lines of the text file, open(path, encoding='utf-8')", ""),
        "kd": ("read_vectors, text file", "1.5x, 300 MB"),
        "parquet": ("read_vectors, Parquet file", ""),
        "cold": ("the same, the file not in the page cache", ""),
    }
    for task, (name, needed) in names.items():
        cost = costs[task]
        ratios = [f"{cost.seconds / costs[lines].seconds:.2f}x" for lines in ("binary", "text")]
        table.add_row(name, f"{cost.seconds:.2f}", f"{cost.processor:.2f}", *ratios, f"{cost.megabytes:.0f}", needed)
    Console().print(table)


def alone(task: Callable[..., None], *arguments: object) -> Cost:
    """Run a task in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (task, arguments))


def measured(task: Callable[..., None], arguments: tuple[object, ...]) -> Cost:
    start, busy = time.perf_counter(), time.process_time()
    task(*arguments)
    seconds, processor = time.perf_counter() - start, time.process_time() - busy
    return Cost(seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)


def read_lines(path: Path, mode: str) -> None:
    with path.open(mode, encoding=None if mode == "rb" else "utf-8") as file:
        for _ in file:
            pass


def read(path: Path, wanted: list[str]) -> None:
    if not read_vectors(path, wanted).found.all():
        raise RuntimeError("a word was not found")


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def word_of(row: int) -> str:
    return f"word{row:x}"


def make(path: Path, words: int, dimension: int) -> None:
    """Write random vectors; formatting each number would take many minutes, so that pieces of rows come from a pool."""
    random = np.random.default_rng(1)
    sizes = [PIECE] * (dimension // PIECE) + [dimension % PIECE] * (dimension % PIECE > 0)
    pools = {size: [piece_of(random.normal(0, 0.4, size)) for _ in range(POOL)] for size in set(sizes)}
    with path.open("wb") as file:
        for start in range(0, words, CHUNK):
            rows = range(start, min(start + CHUNK, words))
            picks = random.integers(0, POOL, (len(rows), len(sizes))).tolist()
            for row, pick in zip(rows, picks, strict=True):
                pieces = (pools[size][index] for size, index in zip(sizes, pick, strict=True))
                file.write(b" ".join([word_of(row).encode(), *pieces]) + b"\n")


def make_parquet(path: Path, words: int, dimension: int) -> None:
    random = np.random.default_rng(1)

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        for start in range(0, words, CHUNK):
            rows = range(start, min(start + CHUNK, words))
            vectors = random.normal(0, 0.4, (len(rows), dimension)).astype(np.float32)
            names = [word_of(row) for row in rows]
            yield pl.DataFrame({"word": names, "vector": vectors}).cast({"vector": pl.List(pl.Float32)})

    schema = {"word": pl.String, "vector": pl.List(pl.Float32)}
    register_io_source(frames, schema=schema).sink_parquet(path, row_group_size=CHUNK)


def piece_of(values: np.ndarray) -> bytes:
    return " ".join(f"{value:.5f}" for value in values).encode()


if __name__ == "__main__":
    main()
