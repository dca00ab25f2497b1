"""Rows a second of student training against the loop that one writes first.

    python benchmarks/student_training.py DATA/SST-2 --rows 20000 --rounds 3

All train the same model (multichannel BiLSTM, 2 x 300-d vectors, hidden 150; checked by comparing outputs) with
AdaDelta on the texts of SST-2 and random logits. The straightforward loop takes random batches of 50, pads them to the
longest, packs them for `nn.LSTM`, and updates all embeddings with `torch.optim.Adadelta`. Rows are a part of one epoch;
the loops take turns, and the table has the medians of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from kdcli.api import QuietReporter, Task
from kdcli.config.schema import StudentSettings, TaskSettings
from kdcli.student.build import build_student, collate
from kdcli.student.dataset import Examples, encode_table
from kdcli.student.train import train_student
from kdcli.student.vectors import Vectors
from kdcli.student.vocabulary import train_vocabulary
from kdcli.tasks.split import load_split, task_from

BATCHES = (50, 128, 256)
TARGETS = ("2x", "3x", "3x")
FIRST = "straightforward, batch 50"
TABLES = ("trained.weight", "frozen.weight")
DEV = pl.DataFrame({"sentence": ["good", "bad"], "label": ["1", "0"]})
OPTIONS = {"hidden": 150, "fc": 200, "embeddings": "multichannel"}
CPU = torch.device("cpu")


class Plain(nn.Module):
    """The model as one writes it first."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.trained = nn.Embedding.from_pretrained(vectors.clone(), freeze=False)
        self.frozen = nn.Embedding.from_pretrained(vectors.clone(), freeze=True)
        self.rnn = nn.LSTM(600, 150, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(300, 200)
        self.dropout = nn.Dropout(0.1)
        self.logits = nn.Linear(200, 2)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Return logits, ``[batch, 2]``, for padded words ``[batch, time]`` and their lengths ``[batch]``."""
        vectors = torch.cat([self.trained(words), self.frozen(words)], dim=-1)
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.rnn(packed)
        states = torch.cat([last[0], last[1]], dim=1)
        return self.logits(self.dropout(functional.relu(self.fc(states))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of SST-2")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a loop in a round, of the 67,349 of an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = load(given.data)
    check_same_model(data)
    speeds: dict[str, list[float]] = {FIRST: [], **{f"kd student, batch {batch}": [] for batch in BATCHES}}
    for number in range(given.rounds):
        speeds[FIRST].append(straightforward(data, given.rows, number))
        for batch in BATCHES:
            speeds[f"kd student, batch {batch}"].append(ours(data, batch, given.rows, number))
    table = Table(title=f"{given.rows:,} of {len(data.examples):,} rows, {given.threads} threads")
    for column in ("", "rows/s", "ratio", "at least"):
        table.add_column(column, justify="left" if not column else "right")
    base = statistics.median(speeds[FIRST])
    for (name, found), target in zip(speeds.items(), ("", *TARGETS), strict=True):
        speed = statistics.median(found)
        table.add_row(name, f"{speed:,.0f}", f"{speed / base:.2f}x", target)
    Console(width=120).print(table)


@dataclass(frozen=True)
class Data:
    """What all loops get."""

    task: Task
    examples: Examples
    tokenizer: Tokenizer
    vectors: Vectors


def load(folder: Path) -> Data:
    settings = TaskSettings(name="sst2", labels=("0", "1"), data_dir=str(folder))
    task = task_from(settings)
    table = load_split(settings, task, "train", QuietReporter())
    tokenizer = train_vocabulary([table["sentence"]], max_size=15_000, min_freq=1, lowercase=True)
    encoded = encode_table(table, tokenizer, task, 128)
    numbers = np.random.default_rng(1)
    logits = numbers.normal(size=(len(encoded), 2)).astype(np.float32)
    matrix = numbers.uniform(-0.25, 0.25, (tokenizer.get_vocab_size(), 300)).astype(np.float32)
    return Data(task, Examples(encoded.texts, logits, encoded.labels), tokenizer, Vectors(matrix, "random", 0))


def check_same_model(data: Data) -> None:
    plain = Plain(torch.from_numpy(data.vectors.matrix)).eval()
    module = build_student("bilstm", OPTIONS, data.task, len(data.vectors.matrix), None, 300).eval()
    tables = {f"embedding.{name}": value for name, value in plain.state_dict().items() if name in TABLES}
    module.load_state_dict(
        {**tables, **{name: value for name, value in plain.state_dict().items() if name not in TABLES}}
    )
    batch = collate(data.examples, np.arange(50), CPU)
    with torch.no_grad():
        torch.testing.assert_close(module(batch), plain(batch.words[0], batch.lengths[0]))


def straightforward(data: Data, rows: int, seed: int) -> float:
    torch.manual_seed(seed)
    module = Plain(torch.from_numpy(data.vectors.matrix))
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adadelta(trained, lr=1.0, rho=0.95, eps=1e-6)
    order = np.random.default_rng(seed).permutation(len(data.examples))[:rows]
    begin = time.perf_counter()
    for start in range(0, rows, 50):
        batch = order[start : start + 50]
        inputs = collate(data.examples, batch, CPU)
        optimizer.zero_grad()
        logits = module(inputs.words[0], inputs.lengths[0])
        functional.mse_loss(logits, torch.from_numpy(data.examples.logits[batch])).backward()
        optimizer.step()
    return rows / (time.perf_counter() - begin)


def ours(data: Data, batch: int, rows: int, seed: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        result = train_student(
            examples=data.examples,
            dev=encode_table(DEV, data.tokenizer, data.task, 128),
            tokenizer=data.tokenizer,
            vectors=data.vectors,
            task=data.task,
            settings=StudentSettings(batch_size=batch, epochs=1),
            options=OPTIONS,
            seed=seed,
            output=Path(folder, "student"),
            max_updates=rows // batch,
        )
    return result.rows_per_second


if __name__ == "__main__":
    main()
