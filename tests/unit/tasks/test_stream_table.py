"""``stream_table`` gives what ``load_table`` gives, piece by piece."""

from pathlib import Path

import polars as pl
import pytest
from glue_tables import TASKS, write

from kdcli.api import QuietReporter
from kdcli.config.load import load_profile
from kdcli.errors import DataError
from kdcli.tasks.split import load_table, stream_table
from kdcli.tasks.task import task_from


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", ["dev", "test"])
def test_as_load_table(name: str, split: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    settings = load_profile(name, environ={}).settings.task
    task, path = task_from(settings), next(tmp_path.glob(f"{split}*.tsv"))
    whole = load_table(path, settings, task, QuietReporter(), labels=False)
    streamed = pl.concat(stream_table(path, settings, task, QuietReporter()))
    assert streamed.equals(whole.select("index", *task.columns))


def test_rows_are_counted_over_the_blocks_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdcli.tables.forms.BLOCK", 1 << 20)
    path = tmp_path / "many.tsv"
    path.write_text("sentence\n" + "a text of some length\n" * 100_000)
    settings = load_profile("sst2", environ={}).settings.task
    batches = list(stream_table(path, settings, task_from(settings), QuietReporter()))
    assert len(batches) > 2
    assert pl.concat(batches)["index"].to_list() == [str(row) for row in range(100_000)]


def test_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "none.tsv"
    path.write_text("sentence\tlabel\n")
    settings = load_profile("sst2", environ={}).settings.task
    with pytest.raises(DataError, match="no rows"):
        list(stream_table(path, settings, task_from(settings), QuietReporter()))
