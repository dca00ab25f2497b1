"""Reading and checking a table of pairs: `kd data check` against plain Python, Polars's bare reader and another build.

    python benchmarks/reading.py [--build FOLDER]

The table has two texts of 10 to 20 words and a label; some rows repeat others, some of these have another label, some
texts hold odd characters, and some are in dev, too. The loops are those that one writes with `split`, sets and dicts;
they must find what `kd` finds. Each way runs in a process of its own, start-up included, and the ways take turns; the
medians of the rounds count. FOLDER is a checkout with its own `.venv`, whose `kd data check` is measured beside ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

LABELS = ("entailment", "not_entailment")
COLUMNS = ("sentence1", "sentence2")
DEV, CHUNK = 10_000, 50_000
PROFILE = """extends = "base"
[task]
name = "pairs"
kind = "pair"
labels = ["entailment", "not_entailment"]
"""
POLARS = "import polars as pl, sys; pl.read_csv(sys.argv[1], separator='\\t', quote_char=None, infer_schema=False)"
READ = "import sys; from kdcli.tables.read import read_table\nfor batch in read_table(sys.argv[1]).batches(): pass"
START = "import polars, numpy, kdcli.tables.read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build", type=Path, help="a checkout of another build, with its own .venv")
    parser.add_argument("--loops", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loops:
        print(json.dumps(check_in_loops(arguments.loops)))
        return
    if arguments.make:
        make(arguments.make, arguments.rows)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak memory begins with its parent's.
        subprocess.run([sys.executable, __file__, "--make", name, "--rows", str(arguments.rows)], check=True)
        train = str(folder / "train.tsv")
        check = ["-m", "kdcli", "data", "check", "-p", str(folder / "pairs.toml"), "--data-dir", name, "--json"]
        ways = {
            "start-up": [sys.executable, "-c", START],
            "polars.read_csv": [sys.executable, "-c", POLARS, train],
            "kd, reading": [sys.executable, "-c", READ, train],
            "loops": [sys.executable, __file__, "--loops", name],
            "kd data check": [sys.executable, *check],
        }
        if arguments.build:
            ways["the other build"] = [str(arguments.build / ".venv/bin/python"), *check]
        measured: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
        printed = {}
        for _ in range(arguments.rounds):
            for way, command in ways.items():
                where = arguments.build if way == "the other build" else Path(__file__).parents[1]
                *figures, printed[way] = run(command, where)
                measured[way].append((figures[0], figures[1], figures[2]))
        expected, found = json.loads(printed["loops"]), summary(json.loads(printed["kd data check"]))
        if found != expected:
            raise SystemExit(f"they find different things:\n{found}\n{expected}")
        show(f"{arguments.rows:,} rows, {Path(train).stat().st_size / 1e6:.0f} MB", measured)


def run(command: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Run a command; return seconds, seconds of processors, peak MB and what it printed."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
        taken = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return taken, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, out.read()


def show(title: str, measured: dict[str, list[tuple[float, float, float]]]) -> None:
    medians = {way: [statistics.median(each) for each in zip(*rounds, strict=True)] for way, rounds in measured.items()}
    ours = medians["kd data check"][0]
    table = Table(title=title)
    for column in ("", "seconds", "of processors", "peak MB", "kd data check is"):
        table.add_column(column, justify="right" if column else "left")
    for way, (taken, processor, memory) in medians.items():
        ratio = f"{taken / ours:.2f}x as fast" if way in ("loops", "the other build") else ""
        table.add_row(way, f"{taken:.2f}", f"{processor:.2f}", f"{memory:,.0f}", ratio)
    Console(width=100).print(table)


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the report of `kd data check` that the loops find, too."""
    train, overlap = report["tables"][0], report["overlaps"][0]
    return {
        "rows": train["rows"],
        "labels": {label["label"]: label["count"] for label in train["labels"]["known"]},
        "words": [[words["min"], words["median"], words["max"]] for words in train["words"].values()],
        "empty": train["empty"]["count"],
        "edges": train["edges"]["count"],
        "repeated": train["repeated"]["rows"],
        "several labels": train["conflicts"]["texts"],
        "in dev": overlap["rows"],
        "alike in dev": overlap["alike"],
    }


def check_in_loops(folder: Path) -> dict[str, Any]:
    labels: Counter[str] = Counter()
    lengths: tuple[list[int], list[int]] = ([], [])
    of_texts: dict[tuple[str, ...], set[str]] = {}
    alike: set[tuple[str, ...]] = set()
    rows = empty = edges = repeated = 0
    for *texts, label in read(folder / "train.tsv"):
        rows += 1
        labels[label] += 1
        for column, text in zip(lengths, texts, strict=True):
            column.append(len(text.split()))
            empty += not text
            edges += text != text.strip()
        repeated += tuple(texts) in of_texts
        of_texts.setdefault(tuple(texts), set()).add(label)
        alike.add(tuple(normalised(text) for text in texts))
    dev = [texts for *texts, _ in read(folder / "dev.tsv")]
    return {
        "rows": rows,
        "labels": dict(sorted(labels.items())),
        "words": [[min(column), statistics.median(column), max(column)] for column in lengths],
        "empty": empty,
        "edges": edges,
        "repeated": repeated,
        "several labels": sum(len(each) > 1 for each in of_texts.values()),
        "in dev": sum(tuple(texts) in of_texts for texts in dev),
        "alike in dev": sum(tuple(map(normalised, texts)) in alike for texts in dev),
    }


def read(path: Path) -> list[list[str]]:
    lines = path.read_bytes().decode().split("\n")
    return [line.split("\t") for line in lines[1:-1]]


def normalised(text: str) -> str:
    return " ".join(text.lower().split())


def make(folder: Path, rows: int) -> None:
    """Write the profile, train and dev, the same ones each time."""
    (folder / "pairs.toml").write_text(PROFILE)
    random = np.random.default_rng(1)
    words = vocabulary(random)
    write(folder / "train.tsv", random, words, rows, [])
    first = read(folder / "train.tsv")[:200]
    taken = [texts for *texts, _ in first] + [[text.upper() for text in texts] for *texts, _ in first]
    write(folder / "dev.tsv", random, words, min(DEV, rows), taken)


def write(path: Path, random: np.random.Generator, words: list[str], rows: int, taken: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("\t".join((*COLUMNS, "label")) + "\n")
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            # One row in a hundred is another one.
            places = np.arange(count)
            repeated = random.random(count) < 0.01
            places[repeated] = random.integers(0, count, repeated.sum())
            first, second = (
                [each[place] for place in places] for each in (sentences(random, words, count) for _ in (0, 1))
            )
            pairs = [*taken, *zip(first[len(taken) :], second[len(taken) :], strict=True)]
            chosen = random.integers(0, len(LABELS), count)
            file.writelines(f"{one}\t{two}\t{LABELS[label]}\n" for (one, two), label in zip(pairs, chosen, strict=True))


def sentences(random: np.random.Generator, words: list[str], count: int) -> list[str]:
    """Draw words as frequent as Zipf has it; a few texts end in a space or hold a no-break or zero-width one."""
    lengths = random.integers(10, 21, count)
    chosen = iter((np.minimum(random.zipf(1.3, lengths.sum()), len(words)) - 1).tolist())
    tails = ["", " ", "\u00a0!", "\u200b", "  ?"]
    shares = random.choice(len(tails), count, p=(0.974, 0.02, 0.002, 0.002, 0.002))
    return [
        " ".join([words[next(chosen)] for _ in range(length)]).capitalize() + tails[share]
        for length, share in zip(lengths.tolist(), shares.tolist(), strict=True)
    ]


def vocabulary(random: np.random.Generator, size: int = 20_000) -> list[str]:
    """Make up words; one in fifty of the rarer ones is not ASCII."""
    letters = np.array(list("etaoinshrdlucmfwygpbvk"))
    share = np.arange(len(letters), 0, -1) / np.arange(len(letters) + 1).sum()
    lengths = np.clip(random.normal(6, 2.5, size), 1, 14).astype(int)
    words = ["".join(random.choice(letters, length, p=share)) for length in lengths]
    return [f"{word}é" if place > 500 and place % 50 == 0 else word for place, word in enumerate(words)]


if __name__ == "__main__":
    main()
