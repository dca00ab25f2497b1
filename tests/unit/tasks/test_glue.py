"""Every task of GLUE as its archives lay it out, and as the Hugging Face Hub does, gives the same texts and labels."""

import pytest
from glue_tables import TASKS, write

from kdcli.config.load import load_profile
from kdcli.tasks.split import load_split, load_tables, task_from

TEXTS = {"sst2": (0,), "cola": (3,), "mrpc": (3, 4), "stsb": (7, 8), "qqp": (3, 4), "mnli": (8, 9), "imdb": (0,)}
"""Where the texts stand in a row of GLUE's own; 1 and 2 otherwise."""


@pytest.fixture
def load(tmp_path, reporter):
    def read(name, split):
        settings = load_profile(name, flags={"task.data_dir": str(tmp_path)}).settings.task
        return load_tables(settings, task_from(settings), split, reporter)

    return read


def rows_of(name, places):
    """Texts and label of the rows that have a gold label."""
    glue = TASKS[name]
    rows = [glue.row(place) for place in places]
    return [(*(row[at] for at in TEXTS.get(name, (1, 2))), row[glue.label]) for row in rows if row[glue.label] != "-"]


def seen(table):
    return table.drop("index").rows()


@pytest.mark.parametrize("name", TASKS)
def test_glues_archives(name, tmp_path, load, reporter):
    write(name, tmp_path, sizes=(24, 12, 6))
    glue = TASKS[name]
    assert seen(load(name, "train")["train"]) == rows_of(name, range(24))
    dev = load(name, "dev")
    assert tuple(dev) == glue.dev
    settings = load_profile(name, flags={"task.data_dir": str(tmp_path)}).settings.task
    assert len(load_split(settings, task_from(settings), "dev", reporter)) == sum(map(len, dev.values()))
    for number, table in enumerate(dev.values()):
        begin = 24 + 12 * number
        assert seen(table) == rows_of(name, range(begin, begin + 12))
    test = load(name, "test")
    assert tuple(test) == glue.test
    for table in test.values():
        assert table["index"].to_list() == [str(number) for number in range(6)]
        assert table["label"].null_count() == 6
    assert not reporter.warnings
    assert any("layout" in info for info in reporter.infos)
