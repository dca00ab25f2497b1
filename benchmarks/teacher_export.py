"""Texts a second: `kd teacher export` against `transformers.pipeline("text-classification", batch_size=32)`.

    python benchmarks/teacher_export.py --teacher DATA/teacher-sst2 --texts DATA/SST-2/train.tsv

Both get the same shuffled texts in this one run, in turns; the best of the rounds counts for each. The export is
timed whole, loading the model, hashing and writing the file included; the pipeline without its loading.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import torch
import transformers
from rich.console import Console
from rich.table import Table

from kdcli.api import Task
from kdcli.config.schema import ExportSettings
from kdcli.tables.read import read_table
from kdcli.tables.write import write_table
from kdcli.teacher.export import export_logits
from kdcli.teacher.model import TeacherSource

SST2 = Task("sst2", "single", ("0", "1"), names=("negative", "positive"))
TARGET = 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a fine-tuned SST-2 model")
    parser.add_argument("--texts", type=Path, required=True, help="table with a column `sentence`")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=ExportSettings().batch_size)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    texts = read_table(options.texts, columns=["sentence"]).frame()["sentence"].to_list()
    texts = random.Random(1).sample(texts, min(options.rows, len(texts)))
    with tempfile.TemporaryDirectory() as folder:
        transfer = Path(folder, "transfer.parquet")
        write_table(transfer, pl.DataFrame({"sentence": texts}))
        ways: dict[str, Callable[[], object]] = {
            "pipeline, fp32, batch 32": pipeline(options.teacher, texts, options.device)
        }
        for precision in ("fp32", "bf16"):
            ways[f"kd export, {precision}, batch {options.batch_size}"] = export(options, transfer, precision)
        seconds = {name: float("inf") for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name] = min(seconds[name], time.perf_counter() - start)

    table = Table(title=f"{len(texts):,} texts on {options.device}, {torch.get_num_threads()} threads")
    for column in ("", "seconds", "texts/s", "ratio", "at least"):
        table.add_column(column, justify="left" if not column else "right")
    base = next(iter(seconds.values()))
    for name, taken in seconds.items():
        least = f"{TARGET}x" if "kd export, fp32" in name else ""
        table.add_row(name, f"{taken:.2f}", f"{len(texts) / taken:,.0f}", f"{base / taken:.2f}x", least)
    Console(width=100).print(table)


def pipeline(teacher: Path, texts: list[str], device: str) -> Callable[[], object]:
    transformers.utils.logging.disable_progress_bar()
    classify = transformers.pipeline(
        "text-classification", model=str(teacher), device=device, dtype=torch.float32, truncation=True, max_length=128
    )
    return lambda: classify(texts, batch_size=32)


def export(options: argparse.Namespace, transfer: Path, precision: str) -> Callable[[], object]:
    return lambda: export_logits(
        transfer=transfer,
        teacher=TeacherSource(str(options.teacher)),
        task=SST2,
        settings=ExportSettings(batch_size=options.batch_size),
        device=options.device,
        precision=precision,
        output=transfer.with_name(f"{precision}.safetensors"),
    )


if __name__ == "__main__":
    main()
