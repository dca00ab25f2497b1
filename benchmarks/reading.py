"""Reading and checking a table of pairs: `kd data check` against pandas and Python loops, and pyarrow's bare reader.

    pip install pandas && python benchmarks/reading.py

The table has two texts of 10 to 20 words and a label; some rows repeat others, some of these have another label, some
texts hold odd characters, and some are in dev, too. The loops are those that one writes with `split`, sets, dicts and
a regular expression; they must find what `kd` finds. Each way runs in a process of its own, after a few rows that warm
it up, and the ways take turns. The medians of the rounds count; imports do not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from rich.console import Console
from rich.table import Table

from kdcli.api import QuietReporter
from kdcli.config.schema import TaskSettings
from kdcli.tables.read import read_table
from kdcli.tasks.check import check_data
from kdcli.tasks.check_counts import NON_PRINTING
from kdcli.tasks.task import task_from

LABELS = ("entailment", "not_entailment")
COLUMNS = ("sentence1", "sentence2")
DEV, CHUNK = 10_000, 100_000
AT_LEAST, AT_MOST = 10.0, 2.0

Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if find_spec("pandas") is None:
        parser.error("pandas is what this is measured against: pip install pandas")
    spawn = multiprocessing.get_context("spawn")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    processor: dict[str, list[float]] = {way: [] for way in WAYS}
    peak, found = dict.fromkeys(WAYS, 0.0), dict[str, Found]()
    with tempfile.TemporaryDirectory() as name:
        many, few = Path(name, "many"), Path(name, "few")
        for folder, rows in ((many, given.rows), (few, 1000)):
            made = spawn.Process(target=make, args=(folder, rows))
            made.start()
            made.join()
        size = (many / "train.tsv").stat().st_size / 1e6
        for _ in range(given.rounds):
            for way in WAYS:
                with spawn.Pool(1) as pool:
                    taken, used, memory, found[way] = pool.apply(measured, (way, many, few))
                seconds[way].append(taken)
                processor[way].append(used)
                peak[way] = max(peak[way], memory)
    if found["kd data check"] != found["pandas and loops"]:
        raise SystemExit(f"they find different things:\n{found['kd data check']}\n{found['pandas and loops']}")
    medians = [{way: statistics.median(each) for way, each in times.items()} for times in (seconds, processor)]
    show(f"{given.rows:,} rows, {size:.0f} MB", *medians, peak)


def show(title: str, seconds: dict[str, float], processor: dict[str, float], peak: dict[str, float]) -> None:
    checking = seconds["pandas and loops"] / seconds["kd data check"]
    notes = {
        "kd, reading": ", ".join(
            f"{seconds['kd, reading'] / seconds[other]:.2f}x the time of {other}" for other in WAYS if "arrow" in other
        )
        + f" (at most {AT_MOST:g}x)",
        "kd data check": f"{checking:.1f}x as fast as pandas and loops (at least {AT_LEAST:g}x)",
    }
    table = Table(title=title)
    for column in ("", "seconds", "of processors", "peak MB", ""):
        table.add_column(column, justify="right" if column else "left")
    for way, taken in seconds.items():
        table.add_row(way, f"{taken:.2f}", f"{processor[way]:.2f}", f"{peak[way]:,.0f}", notes.get(way, ""))
    Console(width=140).print(table)


def measured(way: str, folder: Path, few: Path) -> tuple[float, float, float, Found]:
    WAYS[way](few)
    start, used = time.perf_counter(), time.process_time()
    found = WAYS[way](folder)
    taken, used = time.perf_counter() - start, time.process_time() - used
    return taken, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, found


def read_kd(folder: Path) -> Found:
    return {"rows": sum(batch.num_rows for batch in read_table(folder / "train.tsv"))}


def read_pandas(folder: Path) -> Found:
    return {"rows": len(frame(folder / "train.tsv"))}


def read_arrow(folder: Path, *, threads: bool = True) -> Found:
    table = csv.read_csv(
        folder / "train.tsv",
        read_options=csv.ReadOptions(use_threads=threads),
        parse_options=csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys((*COLUMNS, "label"), pa.string())),
    )
    return {"rows": table.num_rows}


def read_arrow_alone(folder: Path) -> Found:
    return read_arrow(folder, threads=False)


def check_kd(folder: Path) -> Found:
    settings = TaskSettings(name="pairs", kind="pair", labels=LABELS, data_dir=str(folder))
    report = check_data(settings, task_from(settings), QuietReporter())
    train, overlap = report.tables[0], report.overlaps[0].found
    assert train.labels is not None
    return {
        "rows": train.rows,
        "labels": {one.label: one.count for one in train.labels.known},
        "words": [(words.min, words.median, round(words.mean, 6), words.max) for words in train.words.values()],
        "longer": sum(words.longer for words in train.words.values()),
        "empty": train.empty.count,
        "edges": train.edges.count,
        "breaks": train.breaks.count,
        "characters": {one.code: one.count for one in train.characters},
        "repeated": train.repeated.rows,
        "several labels": train.conflicts.texts,
        "in dev": overlap.rows,
        "alike in dev": overlap.alike,
    }


def check_pandas(folder: Path) -> Found:
    """Do the same checks with pandas and plain loops."""
    odd = re.compile(NON_PRINTING)
    labels: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    lengths: tuple[list[int], list[int]] = ([], [])
    of_texts: dict[tuple[str, str], set[str]] = {}
    normal: set[tuple[str, str]] = set()
    empty = edges = breaks = repeated = 0
    train = frame(folder / "train.tsv")
    for first, second, label in zip(*(train[name].tolist() for name in (*COLUMNS, "label")), strict=True):
        labels[label] += 1
        for column, text in zip(lengths, (first, second), strict=True):
            column.append(len(text.split()))
            if not text:
                empty += 1
            if text != text.strip():
                edges += 1
            if "\t" in text or "\n" in text or "\r" in text:
                breaks += 1
            if odd.search(text):
                characters.update(odd.findall(text))
        there = of_texts.get((first, second))
        if there is None:
            of_texts[first, second] = {label}
        else:
            repeated += 1
            there.add(label)
        normal.add((normalised(first), normalised(second)))
    dev = list(zip(*(frame(folder / "dev.tsv")[name].tolist() for name in COLUMNS), strict=True))
    return {
        "rows": len(train),
        "labels": dict(sorted(labels.items())),
        "words": [(min(c), statistics.median(c), round(statistics.fmean(c), 6), max(c)) for c in lengths],
        "longer": sum(length > 128 for column in lengths for length in column),
        "empty": empty,
        "edges": edges,
        "breaks": breaks,
        "characters": {f"U+{ord(each):04X}": count for each, count in characters.most_common()},
        "repeated": repeated,
        "several labels": sum(len(each) > 1 for each in of_texts.values()),
        "in dev": sum(pair in of_texts for pair in dev),
        "alike in dev": sum((normalised(first), normalised(second)) in normal for first, second in dev),
    }


def frame(path: Path) -> Any:
    import pandas

    return pandas.read_csv(path, sep="\t", quoting=3, dtype=str)


def normalised(text: str) -> str:
    return " ".join(text.lower().split())


def make(folder: Path, rows: int) -> None:
    """Write train and dev, the same ones each time."""
    folder.mkdir()
    random = np.random.default_rng(1)
    words = vocabulary(random)
    write(folder / "train.tsv", random, words, rows, [])
    first = read_table(folder / "train.tsv", columns=COLUMNS).table().slice(0, 200)
    taken = [first[name].combine_chunks() for name in COLUMNS]
    taken = [pa.concat_arrays([column, pc.utf8_upper(column)]) for column in taken]
    write(folder / "dev.tsv", random, words, min(DEV, rows), taken)


def write(path: Path, random: np.random.Generator, words: pa.Array, rows: int, taken: list[pa.Array]) -> None:
    with path.open("wb") as file:
        file.write("\t".join((*COLUMNS, "label")).encode() + b"\n")
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            # One row in a hundred is another one.
            places = np.arange(count)
            repeated = random.random(count) < 0.01
            places[repeated] = random.integers(0, count, repeated.sum())
            texts = [sentences(random, words, count).take(pa.array(places)) for _ in COLUMNS]
            if taken:
                texts = [
                    pa.concat_arrays([mine, column[len(mine) :]]) for mine, column in zip(taken, texts, strict=True)
                ]
            labels = pa.array(LABELS).take(pa.array(random.integers(0, len(LABELS), count)))
            lines = pc.binary_join_element_wise(*texts, labels, "\t")
            file.write(("\n".join(lines.to_pylist()) + "\n").encode())


def sentences(random: np.random.Generator, words: pa.Array, count: int) -> pa.Array:
    """Draw words as frequent as Zipf has it; a few texts end in a space or hold a no-break or zero-width one."""
    lengths = random.integers(10, 21, count)
    chosen = np.minimum(random.zipf(1.3, lengths.sum()), len(words)) - 1
    ends = np.append(0, np.cumsum(lengths)).astype(np.int32)
    texts = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), words.take(pa.array(chosen))), " ")
    tails = pa.array(["", " ", "\u00a0!", "\u200b", "  ?"])
    share = random.choice(len(tails), count, p=(0.974, 0.02, 0.002, 0.002, 0.002))
    return pc.binary_join_element_wise(pc.utf8_capitalize(texts), tails.take(pa.array(share)), "")


def vocabulary(random: np.random.Generator, size: int = 20_000) -> pa.Array:
    """Make up words; one in fifty of the rarer ones is not ASCII."""
    letters = np.array(list("etaoinshrdlucmfwygpbvk"))
    share = np.arange(len(letters), 0, -1) / np.arange(len(letters) + 1).sum()
    lengths = np.clip(random.normal(6, 2.5, size), 1, 14).astype(int)
    words = ["".join(random.choice(letters, length, p=share)) for length in lengths]
    return pa.array([f"{word}é" if place > 500 and place % 50 == 0 else word for place, word in enumerate(words)])


WAYS: dict[str, Callable[[Path], Found]] = {
    "pyarrow.csv": read_arrow,
    "pyarrow.csv, one thread": read_arrow_alone,
    "pandas, reading": read_pandas,
    "kd, reading": read_kd,
    "pandas and loops": check_pandas,
    "kd data check": check_kd,
}


if __name__ == "__main__":
    main()
