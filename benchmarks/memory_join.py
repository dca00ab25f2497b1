"""Peak memory and time of `kd join` on millions of rows.

    python benchmarks/memory_join.py --rows 5000000

Makes a transfer set of distinct texts of SST-2's length and a logits file in another order, then joins them in a
process of its own, whose peak resident memory is the figure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kdcli.api import Task
from kdcli.tables.hashing import row_hashes
from kdcli.tables.read import write_table
from kdcli.teacher.join import join
from kdcli.teacher.logits import write_logits

TASK = Task("films", "single", ("0", "1"))
TARGET_GB = 4.0
TEXT = "the film is a good and bad story that works very well but plot not actors dull fine work long funny"
WORDS = TEXT.split()
CHUNK = 250_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--form", default=".tsv", help="suffix of the transfer set and the joined set")
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = spawn.Process(target=make, args=(folder, given.rows, given.form))
        made.start()
        made.join()
        with spawn.Pool(1) as pool:
            seconds, gigabytes = pool.apply(measured_join, (folder, given.form))
        size = (folder / f"joined{given.form}").stat().st_size / 1e9
    print(
        f"join of {given.rows:,} rows ({given.form}, {size:.2f} GB): {seconds:.0f} s, "
        f"{given.rows / seconds:,.0f} rows/s, peak {gigabytes:.2f} GB resident (at most {TARGET_GB:g})"
    )


def measured_join(folder: Path, form: str) -> tuple[float, float]:
    start = time.perf_counter()
    join(
        transfer=folder / f"transfer{form}",
        logits=folder / "logits.safetensors",
        task=TASK,
        output=folder / f"joined{form}",
    )
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def make(folder: Path, rows: int, form: str) -> None:
    random = np.random.default_rng(1)
    words = pa.array(WORDS)
    schema = pa.schema({"sentence": pa.string(), "source": pa.string(), "label": pa.string()})
    hashes = []
    with write_table(folder / f"transfer{form}", schema) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            columns = [words.take(pa.array(random.integers(0, len(WORDS), count))) for _ in range(9)]
            texts = pc.binary_join_element_wise(*columns, pa.array(np.arange(start, start + count)).cast("string"), " ")
            hashes.append(row_hashes([texts]))
            nothing = pa.nulls(count, pa.string())
            writer.write(pa.table([texts, pa.array(["lite"] * count), nothing], schema=schema))
    order = random.permutation(rows)
    logits = random.normal(size=(rows, 2)).astype(np.float32)
    write_logits(folder / "logits.safetensors", logits, np.concatenate(hashes)[order], {"labels": list(TASK.labels)})


if __name__ == "__main__":
    main()
