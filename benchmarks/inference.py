"""Sentences a second on fresh texts, text in and label out: the student against encoders.

    python benchmarks/inference.py --texts SENTENCES.txt [--tokenizer FOLDER]
    taskset -c 0 python benchmarks/inference.py --texts SENTENCES.txt        # on one core

All models have random weights: a student of hidden 150, FC 200 and 600-d multichannel input, whose vocabulary of
15,000 words is made of the texts, the other students, and encoders of the sizes of BERT-large and of all-MiniLM-L6.
They take turns in this one run. Each of the five rounds has texts of its own, and each text is timed once: the students
are loaded anew for every round, so that their tables of words are empty, and get all its texts; the encoders get some
batches of texts of one length, taken evenly over the round's texts in the order of their lengths: what a batch costs
there, it costs in a run over all texts. Ratios are those of a round. "warm" is the student on its texts once more.

Then the student's latency with one fresh text a call, a whole `kd predict` from file to file, and the time that
`kd predict` takes for ten lines in a fresh process. Without --texts, made-up sentences stand for the texts, and without
--tokenizer the encoders' word pieces are learned from the texts, which makes them fewer than BERT's own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from machine import describe, spread
from rich.console import Console
from rich.table import Table
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
from transformers.utils import logging

from kdcli.api import Task
from kdcli.config.schema import StudentSettings
from kdcli.models.classifier import Classifier
from kdcli.student.build import build_student, count_parameters
from kdcli.student.student import Student, load_student
from kdcli.student.vocabulary import train_vocabulary
from kdcli.tables.read import read_table

TASK = Task("sst2", "single", ("0", "1"), names=("negative", "positive"))
STUDENTS: dict[str, dict[str, object]] = {
    "bilstm": {"hidden": 150, "fc": 200, "embeddings": "multichannel"},
    "kimcnn": {},
    "dan": {},
}
"""The students and their options; the others have those that they have by themselves."""
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SMALL = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
ENCODERS = {
    "BERT-large, fp32": (LARGE, torch.float32, 1000),
    "BERT-large, bf16": (LARGE, torch.bfloat16, 300),
    "6 layers of 384, fp32": (SMALL, torch.float32, 40),
}
"""Their sizes and arithmetic, and how many times faster the student is to be at least."""
LATENCY, COLD_START = 1.0, 0.8
"""The most milliseconds of a call with one text (p50), and seconds of ten lines in a fresh process."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="a table, or plain lines")
    parser.add_argument("--column", default="sentence", help="the table's column of texts")
    parser.add_argument("--tokenizer", type=Path, help="folder with BERT's vocab.txt")
    parser.add_argument("--batch-size", type=int, default=32, help="of the encoders")
    parser.add_argument("--batches", type=int, default=6, help="of an encoder in a round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    logging.set_verbosity_error()
    torch.manual_seed(1)

    texts = made_up() if given.texts is None else read_texts(given.texts, given.column)
    texts = [texts[number] for number in np.random.default_rng(1).permutation(len(texts))]
    # The first part warms up whatever is not the models' own; then comes one for each round.
    first, *parts = (list(part) for part in np.array_split(np.array(texts, object), 2 * given.rounds + 1))
    rounds, files = parts[::2], parts[1::2]
    speeds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for plugin, options in STUDENTS.items():
            make_student(folder / plugin, texts, plugin, options)
        tokenizer = bert_tokenizer(given.tokenizer, texts, folder)
        encoders = {name: encoder(size, dtype, tokenizer) for name, (size, dtype, _) in ENCODERS.items()}
        for part in (first, *rounds):
            for plugin in STUDENTS:
                student = load_student(folder / plugin)
                speeds[plugin].append(rate(len(part), answer, student, part))
                if plugin == "bilstm":
                    speeds["bilstm, warm"].append(rate(len(part), answer, student, part))
            batches = evenly(part, given.batches, given.batch_size)
            for name, model in encoders.items():
                speeds[name].append(rate(sum(map(len, batches)), encode, model, batches))
        for values in speeds.values():
            del values[0]
        command = [sys.executable, "-m", "kdcli", "--quiet", "predict", "--student", str(folder / "bilstm")]
        for part in files:
            write_lines(folder / "texts.txt", part)
            whole = [*command, "--input", str(folder / "texts.txt"), "--output", str(folder / "out.tsv"), "--force"]
            speeds["kd predict, file to file"].append(rate(len(part), timed, whole))
        student = load_student(folder / "bilstm")
        calls = latencies(student.predict, first[:2000])
        write_lines(folder / "ten.txt", first[:10])
        starts = [timed([*command, "--input", str(folder / "ten.txt")]) for _ in range(given.rounds)]
    show(len(rounds[0]), texts, speeds, calls, starts)


def rate(count: int, work: Callable[..., object], *given: Any) -> float:
    """Return the texts a second of a work."""
    begin = time.perf_counter()
    work(*given)
    return count / (time.perf_counter() - begin)


def answer(student: Student, texts: list[str]) -> list[str]:
    return labels(student.logits([texts]))


def encode(model: Classifier, batches: Sequence[Sequence[str]]) -> list[list[str]]:
    return [labels(model.logits([batch], len(batch))) for batch in batches]


def read_texts(path: Path, column: str) -> list[str]:
    table = read_table(path) if path.suffix == ".txt" else read_table(path, columns=[column])
    return table.frame()[table.columns[0]].unique(maintain_order=True).to_list()


def made_up(rows: int = 67_349) -> list[str]:
    """Make sentences whose words are as often as Zipf says."""
    numbers = np.random.default_rng(1)
    words = np.array(["".join(map(chr, numbers.integers(97, 123, numbers.integers(2, 9)))) for _ in range(16_000)])
    shares = 1 / np.arange(1, len(words) + 1)
    sizes = numbers.integers(5, 40, rows)
    return [" ".join(words[numbers.choice(len(words), size, p=shares / shares.sum())]) for size in sizes]


def make_student(folder: Path, texts: Sequence[str], plugin: str, options: dict[str, object]) -> None:
    settings = StudentSettings()
    tokenizer = train_vocabulary([pl.Series(texts)], max_size=settings.max_size, min_freq=1, lowercase=True)
    module = build_student(plugin, options, TASK, tokenizer.get_vocab_size(), None, settings.dimension)
    every, inside = count_parameters(module)
    config = {
        "plugin": plugin,
        "options": options,
        "vocabulary_size": tokenizer.get_vocab_size(),
        "dimension": settings.dimension,
        "max_length": settings.max_length,
        "vectors": None,
        "rows": len(texts),
        "seed": 1,
        "training": settings.model_dump(mode="json"),
    }
    metrics = {"dev": {}, "updates": 0, "best_update": 0}
    metrics |= {"parameters": every, "parameters_without_embeddings": inside}
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    Student(TASK, config, metrics, tokenizer, weights).save(folder)


def bert_tokenizer(folder: Path | None, texts: Sequence[str], place: Path) -> BertTokenizerFast:
    if folder is None:
        pieces = BertWordPieceTokenizer()
        pieces.train_from_iterator(texts, vocab_size=30_522, show_progress=False)
        pieces.save_model(str(place))
        folder = place
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"))


def encoder(size: dict[str, int], dtype: torch.dtype, tokenizer: BertTokenizerFast) -> Classifier:
    model = BertForSequenceClassification(BertConfig(**size)).to(dtype).eval()
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return Classifier(Path(), model, tokenizer, TASK.labels, 128, inputs)


def evenly(texts: Sequence[str], batches: int, size: int) -> list[list[str]]:
    """Return batches of neighbours in the order of their lengths, from evenly spaced places of it."""
    ordered = sorted(texts, key=lambda text: text.count(" "))
    places = [int((number + 0.5) * len(ordered) / batches - size / 2) for number in range(batches)]
    return [ordered[max(0, place) : max(0, place) + size] for place in places]


def labels(logits: np.ndarray) -> list[str]:
    return [TASK.labels[best] for best in logits.argmax(1)]


def latencies(predict: Callable[[list[str]], object], texts: Sequence[str]) -> list[float]:
    """Return p50, p95 and p99 of calls with one text, in milliseconds."""
    taken = []
    for text in texts:
        begin = time.perf_counter()
        predict([text])
        taken.append(1000 * (time.perf_counter() - begin))
    return [float(value) for value in np.percentile(taken, [50, 95, 99])]


def write_lines(path: Path, texts: Sequence[str]) -> None:
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")


def timed(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def show(
    size: int, texts: Sequence[str], speeds: dict[str, list[float]], calls: Sequence[float], starts: Sequence[float]
) -> None:
    words = sum(text.count(" ") + 1 for text in texts) / len(texts)
    table = Table(title=f"{len(starts)} rounds of {size:,} fresh texts, {words:.1f} words each: median (least to most)")
    for column in ("", "sentences/s", "the student is faster by", "at least"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in speeds.items():
        least = f"{ENCODERS[name][2]}x" if name in ENCODERS else ""
        ratios = [student / other for student, other in zip(speeds["bilstm"], values, strict=True)]
        table.add_row(name, spread(values), f"{spread(ratios, ',.1f')}", least)
    console = Console(width=110)
    console.print(table)
    p50, p95, p99 = calls
    console.print(f"one text a call: p50 {p50:.2f} ms (needed: under {LATENCY:g}), p95 {p95:.2f} ms, p99 {p99:.2f} ms")
    console.print(f"kd predict, ten lines in a fresh process: {spread(starts, '.2f')} s (needed: under {COLD_START:g})")
    console.print(describe())


if __name__ == "__main__":
    main()
