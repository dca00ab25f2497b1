"""How fast ``transfer lite`` is, against the straightforward loop of paper A's released code.

    python benchmarks/transfer_lite.py
    python benchmarks/transfer_lite.py --memory

The loop does what that code meant to do (not what breaks in it): it tags each text twice with ``nltk.pos_tag``, once
to count the words of each tag and once to rewrite the text, and draws a random number for each word of each new text
in Python. It runs on the first ``--rows`` texts, ``kd`` on all of them: the ratio is of texts a second. The time of
``kd`` holds the start of the interpreter, imports, reading and writing; that of the loop does not. A round measures
all of them; the best of the rounds counts, since other work on the machine only ever makes one slower.

``--memory`` writes more than ten million rows and prints the largest resident memory of any process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
P_MASK, P_POS, P_NGRAM, SHORTEST, LONGEST = 0.1, 0.1, 0.25, 1, 5


def loop(texts: list[str], n_iter: int, words: str, output: Path) -> int:
    """Rewrite texts one by one, word by word; return the number of rows written."""
    import nltk

    cut = nltk.NLTKWordTokenizer().tokenize if words == "treebank" else str.split
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text in texts:
        for word, tag in nltk.pos_tag(cut(text)):
            counts[tag][word] += 1
    unigrams = {tag: (list(of_tag), list(accumulate(of_tag.values()))) for tag, of_tag in counts.items()}
    seen = set(texts)
    with output.open("w", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in texts)
        for text in texts:
            tagged = nltk.pos_tag(cut(text))
            for _ in range(n_iter):
                made = rewrite(tagged, unigrams)
                if made not in seen:
                    seen.add(made)
                    file.write(f"{made}\n")
    return len(seen)


def rewrite(tagged: list[tuple[str, str]], unigrams: dict[str, tuple[list[str], list[int]]]) -> str:
    """Make one new text."""
    made = []
    for word, tag in tagged:
        u = random.random()
        if u < P_MASK:
            made.append("[MASK]")
        elif u < P_MASK + P_POS:
            others, upto = unigrams[tag]
            made.append(random.choices(others, cum_weights=upto)[0])
        else:
            made.append(word)
    if made and random.random() < P_NGRAM:
        n = min(random.randint(SHORTEST, LONGEST), len(made))
        start = random.randint(0, len(made) - n)
        made = made[start : start + n]
    return " ".join(made)


def fabricate(data: Path, tagger: str, n_iter: int, words: str, workers: int) -> dict[str, Any]:
    """Run ``kd``'s own, and return its rows and its memory (megabytes, of this process and of its largest child)."""
    from kdcli.api import Task
    from kdcli.config.transfer import LiteSettings
    from kdcli.tables.read import read_table
    from kdcli.transfer import lite

    with TemporaryDirectory() as folder:
        result = lite.fabricate(
            train=read_table(data / "train.tsv").frame(),
            held_out=[read_table(data / f"{split}.tsv").frame() for split in ("dev", "test")],
            task=Task("sst2", "single", ("0", "1")),
            settings=LiteSettings(n_iter=n_iter, tagger=tagger, workers=workers, words=words),
            seed=1,
            output=Path(folder) / "transfer.parquet",
        )
    assert result is not None
    own, child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    made = result.fabricated + result.duplicates + result.held_out_copies
    return {"rows": result.rows, "made": result.originals + made, "own": own // 1024, "child": child // 1024}


def timed_kd(options: argparse.Namespace, tagger: str, n_iter: int) -> tuple[float, dict[str, Any]]:
    """Run ``fabricate`` in a process of its own; return the seconds from its start to its end."""
    began = time.perf_counter()
    call = [sys.executable, __file__, "--kd", tagger, "--n-iter", str(n_iter), "--words", options.words]
    call += ["--workers", str(options.workers), "--data-dir", str(options.data_dir)]
    done = subprocess.run(call, check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - began, json.loads(done.stdout)


def timed_loop(options: argparse.Namespace, texts: list[str]) -> float:
    import nltk

    nltk.pos_tag(["loaded"])
    random.seed(1)
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        loop(texts, options.n_iter, options.words, Path(folder) / "transfer.txt")
        return time.perf_counter() - began


def compare(options: argparse.Namespace) -> None:
    with (options.data_dir / "train.tsv").open(encoding="utf-8", newline="\n") as file:
        texts = [line.rstrip("\n").split("\t")[0] for line in file][1:]
    some = texts[: options.rows]
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        rates = {"loop": len(some) / timed_loop(options, some)}
        for tagger in ("nltk", "pattern"):
            rates[tagger] = len(texts) / timed_kd(options, tagger, options.n_iter)[0]
        best = {name: max(rate, best.get(name, 0)) for name, rate in rates.items()}
    print(f"SST-2 train, n_iter {options.n_iter}, words = {options.words!r}, best of {options.rounds} rounds")
    print(f"{'':42} {'texts/s':>9} {'ratio':>7} {'wanted':>7}")
    print(f"{f'loop, nltk.pos_tag twice, {len(some)} texts':42} {best['loop']:9.0f} {1:7.1f}")
    for tagger, wanted in (("nltk", 3), ("pattern", 7)):
        name = f"kd, {tagger}, {options.workers} processes, {len(texts)} texts"
        print(f"{name:42} {best[tagger]:9.0f} {best[tagger] / best['loop']:7.1f} {wanted:7.1f}")


def measure_memory(options: argparse.Namespace) -> None:
    print(f"{'tagger':8} {'rows':>10} {'before drop':>12} {'seconds':>8} {'MB, parent':>11} {'MB, worker':>11}")
    for tagger in ("nltk", "pattern"):
        seconds, run = timed_kd(options, tagger, options.memory)
        print(
            f"{tagger:8} {run['rows']:10} {run['made']:12} {seconds:8.0f} {run['own']:11} {run['child']:11}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=SHARED / "data" / "glue" / "SST-2")
    parser.add_argument("--rows", type=int, default=6000, help="texts that the loop rewrites")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n-iter", type=int, default=20)
    parser.add_argument("--words", choices=("treebank", "whitespace"), default="whitespace")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="?", const=330, metavar="N_ITER", help="measure memory instead")
    parser.add_argument("--kd", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if (SHARED / "nltk_data").exists():
        os.environ.setdefault("NLTK_DATA", str(SHARED / "nltk_data"))
    if options.kd:
        print(json.dumps(fabricate(options.data_dir, options.kd, options.n_iter, options.words, options.workers)))
    elif options.memory:
        measure_memory(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
