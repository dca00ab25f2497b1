from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_run import write_run

from kdcli.api import QuietReporter, Task
from kdcli.report import texts
from kdcli.report.texts import TransferSet, survey

CLASSES = Task("made", "single", ("no", "yes"))


def surveyed(path: Path, task: Task, seed: int = 7) -> TransferSet:
    return survey(path, task, seed=seed, reporter=QuietReporter())


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(path).to_dicts()


@pytest.mark.parametrize("pairs", [False, True])
def test_counts_by_source(tmp_path: Path, pairs: bool) -> None:
    path = write_run(tmp_path / "run", pairs=pairs) / "join" / "joined.parquet"
    task = Task("made", "pair" if pairs else "single", ("no", "yes"))
    found, rows = surveyed(path, task), rows_of(path)
    assert [(source.name, source.rows) for source in found.sources] == [("original", 10), ("lite", 90), ("heavy", 40)]
    assert found.rows == len(rows) == 140
    for source in found.sources:
        own = [row for row in rows if row["source"] == source.name]
        words = [sum(len(row[column].split()) for column in task.columns) for row in own]
        assert source.mean_length == pytest.approx(np.mean(words))
        assert source.median_length == sorted(words)[(len(words) - 1) // 2]
        assert source.answers is not None
        assert source.answers[1] == sum(float(row["logits_1"]) > float(row["logits_0"]) for row in own)


def test_scores(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run", labels=()) / "join" / "joined.parquet"
    found = surveyed(path, Task("made", "single", (), score_range=(0.0, 5.0)))
    assert [source.answers for source in found.sources] == [None] * 3
    there = {(row["sentence"], float(row["logits_0"])) for row in rows_of(path)}
    assert {(*sample.texts, sample.sure) for sample in found.samples} <= there
    assert all(sample.answer == f"{sample.sure:.3g}" for sample in found.samples)


def test_samples_are_rows_of_the_table_as_many_of_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "SAMPLES", 24)
    path = write_run(tmp_path / "run") / "join" / "joined.parquet"
    found = surveyed(path, CLASSES).samples
    assert Counter(sample.source for sample in found) == {"original": 8, "lite": 8, "heavy": 8}
    there = {(row["sentence"], row["source"], row["logits_1"] > row["logits_0"]) for row in rows_of(path)}
    assert all(sample.sure is not None and 0.5 <= sample.sure <= 1 for sample in found)
    assert {(*sample.texts, sample.source, sample.answer == "yes") for sample in found} <= there
    assert found == surveyed(path, CLASSES).samples != surveyed(path, CLASSES, seed=8).samples
