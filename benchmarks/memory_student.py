"""Peak memory and time of `kd student` on millions of rows: encoding the joined set, then a few updates.

    python benchmarks/memory_student.py --rows 5000000

Makes a joined set of distinct texts of SST-2's length, with 20,000 different words, then encodes it and trains on it in
a process of its own, whose peak resident memory (memory-mapped pages included) is the figure.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from kdcli.api import Task
from kdcli.config.schema import StudentSettings
from kdcli.student.dataset import encode, encode_table, load_examples
from kdcli.student.train import train_student
from kdcli.student.vocabulary import load_tokenizer
from kdcli.tables.write import write_table

TASK = Task("films", "single", ("0", "1"))
TARGET_GB = 4.0
WORDS = 20_000
CHUNK = 250_000
UPDATES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--form", default=".parquet", help="suffix of the joined set")
    given = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = spawn.Process(target=make, args=(folder, given.rows, given.form))
        made.start()
        made.join()
        size = (folder / f"joined{given.form}").stat().st_size / 1e9
        with spawn.Pool(1) as pool:
            encoding, training, gigabytes = pool.apply(measured_student, (folder, given.form))
    print(
        f"student of {given.rows:,} rows ({given.form}, {size:.2f} GB): encoded in {encoding:.0f} s, "
        f"{given.rows / encoding:,.0f} rows/s; {UPDATES} updates, start and end in {training:.0f} s; "
        f"peak {gigabytes:.2f} GB resident (at most {TARGET_GB:g})"
    )


def measured_student(folder: Path, form: str) -> tuple[float, float, float]:
    settings = StudentSettings()
    start = time.perf_counter()
    encode(joined=folder / f"joined{form}", task=TASK, settings=settings, seed=1, output=folder / "encoded")
    middle = time.perf_counter()
    tokenizer = load_tokenizer(folder / "encoded")
    dev = pl.DataFrame({"sentence": ["w1 w2", "w3 w4"], "label": ["0", "1"]})
    train_student(
        examples=load_examples(folder / "encoded", TASK),
        dev=encode_table(dev, tokenizer, TASK, settings.max_length),
        tokenizer=tokenizer,
        vectors=None,
        task=TASK,
        settings=settings,
        options={},
        seed=1,
        output=folder / "student",
        max_updates=UPDATES,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return middle - start, time.perf_counter() - middle, peak


def make(folder: Path, rows: int, form: str) -> None:
    random = np.random.default_rng(1)
    words = pl.Series([f"w{number}" for number in range(WORDS)])

    def frames(*_: object) -> Iterator[pl.DataFrame]:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            # The square makes some words frequent and most rare, as in language.
            columns = {
                f"w{place}": words.gather((WORDS * random.random(count) ** 2).astype(np.int64)) for place in range(10)
            }
            logits = {f"logits_{number}": random.normal(size=count).astype(np.float32) for number in range(2)}
            labels = pl.Series(random.integers(0, 2, count)).cast(pl.String)
            texts = pl.DataFrame(columns).select(sentence=pl.concat_str(pl.all(), separator=" "))
            yield texts.with_columns(
                source=pl.lit("lite"), label=labels, **{k: pl.Series(v) for k, v in logits.items()}
            )

    schema = {
        "sentence": pl.String,
        "source": pl.String,
        "label": pl.String,
        **dict.fromkeys(("logits_0", "logits_1"), pl.Float32),
    }
    write_table(folder / f"joined{form}", register_io_source(frames, schema=schema))


if __name__ == "__main__":
    main()
