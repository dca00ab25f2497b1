"""Peak memory and time of `kd join` on millions of rows.

    python benchmarks/memory_join.py --rows 5000000

Makes a transfer set of distinct texts of SST-2's length and a logits file in another order, then joins them in a
process of its own; its peak resident memory is the figure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from kdcli.api import Task
from kdcli.tables.text_hash import text_hash
from kdcli.tables.write import write_table
from kdcli.teacher.join import join
from kdcli.teacher.logits import write_logits

TASK = Task("films", "single", ("0", "1"))
TARGET_GB = 4.0
WORDS = [
    "the",
    "film",
    "is",
    "a",
    "good",
    "and",
    "bad",
    "story",
    "that",
    "works",
    "very",
    "well",
    "but",
    "plot",
    "not",
    "actors",
    "dull",
    "fine",
    "work",
    "long",
    "funny",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--form", default=".parquet", help="suffix of the transfer set and the joined set")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = spawn.Process(target=make, args=(folder, options.rows, options.form))
        maker.start()
        maker.join()
        with spawn.Pool(1) as pool:
            seconds, gigabytes = pool.apply(measure, (folder, options.form))
        size = (folder / f"joined{options.form}").stat().st_size / 1e9
    print(
        f"join of {options.rows:,} rows ({options.form}, {size:.2f} GB): {seconds:.0f} s, "
        f"{options.rows / seconds:,.0f} rows/s, peak {gigabytes:.2f} GB resident (at most {TARGET_GB:g})"
    )


def measure(folder: Path, form: str) -> tuple[float, float]:
    start = time.perf_counter()
    transfer, output = folder / f"transfer{form}", folder / f"joined{form}"
    join(transfer=transfer, logits=folder / "logits.safetensors", task=TASK, output=output)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def make(folder: Path, rows: int, form: str) -> None:
    random = np.random.default_rng(1)
    words = pl.Series(WORDS)
    columns = [words.gather(random.integers(0, len(WORDS), rows)).alias(str(place)) for place in range(9)]
    texts = pl.DataFrame([*columns, pl.Series("row", np.arange(rows))])
    table = texts.select(pl.concat_str(pl.all(), separator=" ").alias("sentence"))
    write_table(folder / f"transfer{form}", table.with_columns(source=pl.lit("lite"), label=pl.lit(None, pl.String)))
    order = random.permutation(rows)
    logits = random.normal(size=(rows, 2)).astype(np.float32)
    hashes = text_hash([table["sentence"]])[order]
    write_logits(folder / "logits.safetensors", [(hashes, logits, None)], rows, {"labels": list(TASK.labels)})


if __name__ == "__main__":
    main()
