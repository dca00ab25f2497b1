from pathlib import Path

import pytest
from glue_tables import TASKS, write
from raising import raising

from kdcli.api import QuietReporter
from kdcli.config.load import load_profile
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError, ProfileError
from kdcli.tasks.split import load_split, load_table, load_tables, task_from

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"


@pytest.fixture
def load(tmp_path, settings_of, notes):
    """Read one table of a GLUE task, given as lines with | for the tabs; give its rows."""

    def read(task, *lines, name="table.tsv", **changes):
        path = tmp_path / name
        path.write_text("".join(line.replace("|", "\t") + "\n" for line in lines), "utf-8")
        settings = settings_of(task, **changes)
        return load_table(path, settings, task_from(settings), notes).rows()

    return read


SINGLE = [("0", "good", "1"), ("1", "bad", "0")]
STSB = "main|MSRvid|2012|0001|none|none|"


@pytest.mark.parametrize(
    ("task", "lines", "layout"),
    [
        ("SST-2", ["sentence|label", "good|1", "bad|0"], "sst2"),
        ("SST-2", ["label|sentence", "1|good", "0|bad"], "sst2"),
        ("SST-2", ["label|content", "1|good", "0|bad"], "sst2"),
        ("SST-2", ["good|1", "bad|0"], "sst2, no header"),
        ("SST-2", ["1|good", "0|bad"], "sst2, no header"),
        ("SST-2", ["sentence|source|label|logits_0", "good|original|1|0.5", "bad|original|0|1"], "sst2"),
        ("CoLA", ["gj04|1||good", "gj04|0|*|bad"], "cola, no header"),
        ("SST-2", ["review|sentiment", "good|positive", "bad|negative"], "imdb"),
        ("SST-2", ["good|positive", "bad|negative"], "sst2, no header"),
    ],
)
def test_single_texts(load, notes, task, lines, layout):
    assert load(task, *lines) == SINGLE
    assert f"layout {layout}:" in notes.infos[0]
    assert notes.warnings == []


@pytest.mark.parametrize(
    ("task", "lines", "row"),
    [
        ("MRPC", ["Quality|#1 ID|#2 ID|#1 String|#2 String", '1|7|8|a "b"|c'], ("0", 'a "b"', "c", "1")),
        ("MNLI", ["premise|hypothesis|label|idx", "a|b|neutral|4"], ("4", "a", "b", "neutral")),
        ("MNLI", ["Logic|Premise|Hypothesis|Label", "x|a|b|neutral"], ("0", "a", "b", "neutral")),
        ("MRPC", ["sentence1|sentence2|label|idx", "a|b|equivalent|9"], ("9", "a", "b", "1")),
        ("STS-B", [f"7|{STSB}a|b|4.750"], ("7", "a", "b", "4.750")),
        ("STS-B", ["main|MSRvid|2012|0001|5.000|a|b"], ("0", "a", "b", "5.000")),
        ("RTE", ["a|b|entailment"], ("0", "a", "b", "entailment")),
        ("RTE", ["entailment|a|b"], ("0", "a", "b", "entailment")),
        ("RTE", ["sentence1|sentence2|source|label", "a|b|original|entailment"], ("0", "a", "b", "entailment")),
        ("SST-2", ["index|sentence", "4|good"], ("4", "good", None)),
        ("SST-2", ["index|sentence|label", "4|good|-1"], ("4", "good", None)),
        ("STS-B", ["idx|sentence1|sentence2|score", "4|a|b|-1"], ("4", "a", "b", None)),
    ],
)
def test_pairs_and_tables_for_prediction_which_need_no_labels(load, task, lines, row):
    assert load(task, *lines) == [row]


def test_the_layout_without_header_is_that_of_most_rows_and_a_layout_can_be_named(load):
    """The first text looks like a label; the others tell which column has the labels."""
    assert load("SST-2", "1|0", "good|1", "bad|0")[0] == ("0", "1", "0")
    assert load("SST-2", "1|0", "1|good", "0|bad")[0] == ("0", "0", "1")
    assert load("STS-B", "sentence1|sentence2|score", "a|b|-1", score_range=(-1, 1)) == [("0", "a", "b", "-1")]
    assert load("CoLA", "index|sentence", "0|x", layout="cola") == [("0", "x", None)]
    with raising(ProfileError, "no layout 'sst'", hint="sst2"):
        load("SST-2", "sentence|label", "x|1", layout="sst")
    with pytest.raises(DataError, match="a table of single texts"):
        load("RTE", "sentence|label", "x|entailment")


def test_columns_of_the_users_own(load, notes):
    lines = ["id|review|stars", "x7|good|1", "x8|bad|0"]
    own = {"text_columns": ("review",), "label_column": "stars"}
    assert load("SST-2", *lines, **own) == [("x7", "good", "1"), ("x8", "bad", "0")]
    assert "of your own" in notes.infos[0]
    assert load("SST-2", *lines[1:], text_columns=("c1",), label_column="c2") == SINGLE
    comma = [line.replace("|", ",") for line in lines]
    assert load("SST-2", *comma[1:], name="a.csv", text_columns=("c1",), label_column="c2") == SINGLE
    assert load("SST-2", "sentence|label|other", "good|0|1", label_column="other") == [("0", "good", "1")]
    assert load("SST-2", "question|sentence", "q|s", text_columns=("sentence",)) == [("0", "s", None)]


@pytest.mark.parametrize(
    ("changes", "lines", "what"),
    [
        ({"text_columns": ("review",)}, ["text|label", "x|1"], "no column 'review'"),
        ({"text_columns": ("c5",)}, ["x|1"], "no column 'c5'"),
        ({}, ["opinion|stars", "x|1", "y|0"], "no known layout: its first row is 'opinion', 'stars'"),
        ({"layout": "mrpc"}, ["sentence|label", "x|1"], "no table of layout mrpc"),
        ({}, ["question|sentence|label", "q|s|1"], "a table of pairs, and task.kind is single"),
    ],
)
def test_a_column_that_is_missing(load, changes, lines, what):
    with raising(DataError, what, hint=True):
        load("SST-2", *lines, **changes)


def test_plain_lines(load):
    assert load("SST-2", "good", "bad", "", name="a.txt") == [("0", "good", None), ("1", "bad", None), ("2", "", None)]
    assert load("SST-2", "good|1", "bad|0", name="a.txt") == SINGLE
    assert load("SST-2", "tab|in text", "bad", name="a.txt") == [("0", "tab\tin text", None), ("1", "bad", None)]
    assert load("SST-2", "x|good|1", name="a.txt", text_columns=("c1",), label_column="c2") == [("0", "good", "1")]
    assert load("RTE", "a|b", name="a.txt") == [("0", "a", "b", None)]
    with pytest.raises(DataError, match="two texts with a tab between"):
        load("RTE", "a", name="a.txt")


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
def test_odd_files(settings_of, notes):
    def odd(name, task="SST-2", **changes):
        settings = settings_of(task, **changes)
        return load_table(SHARED / "odd" / name, settings, task_from(settings), notes)

    table = odd("label_first_named_content.tsv")
    assert len(table) == 49 and table.row(0) == ("0", "one long string of cliches .", "0")
    table = odd("no_header_no_final_newline.tsv")
    assert (len(table), table["sentence"][0]) == (50, "one long string of cliches")
    table = odd("u0085_in_text.txt")
    assert len(table) == 51 and set(table["label"]) == {"0", "1"}
    assert sum("\x85" in text for text in table["sentence"]) == 1
    with raising(DataError, "9 fields", row=61):
        odd("ragged_no_header.csv", "STS-B")
    notes.warnings.clear()
    table = odd("ragged_no_header.csv", "STS-B", bad_rows="skip")
    assert len(table) == 90 and table["sentence2"][0] == "An air plane is taking off."
    assert "10 bad rows skipped, the first is row 61: 9 fields" in notes.warnings[0]


@pytest.mark.parametrize(
    ("split", "layout", "lines", "rows"),
    [
        ("test", "auto", ["__label__0 good", "__label__1 bad"], [("good", "0"), ("bad", "1")]),
        ("test", "lines", ["__label__0 good"], [("__label__0 good", None)]),
        ("dev", "fasttext", ["good", "__label__1 bad"], [("bad", "1")]),  # a line without a label is left out
    ],
)
def test_a_setting_overrules_that_lines_begin_with_labels(tmp_path, split, layout, lines, rows):
    (tmp_path / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    settings = TaskSettings(labels=("0", "1"), layout=layout, data_dir=str(tmp_path))
    assert seen(load_tables(settings, task_from(settings), split, QuietReporter())[split]) == rows


TEXTS = {"sst2": (0,), "cola": (3,), "mrpc": (3, 4), "stsb": (7, 8), "qqp": (3, 4), "mnli": (8, 9), "imdb": (0,)}
"""Where the texts stand in a row of GLUE's own; 1 and 2 otherwise."""


@pytest.fixture
def load_task(tmp_path, notes):
    def read(name, split):
        settings = load_profile(name, flags={"task.data_dir": str(tmp_path)}).settings.task
        return load_tables(settings, task_from(settings), split, notes)

    return read


def rows_of(name, places):
    """Texts and label of the rows that have a gold label."""
    glue = TASKS[name]
    rows = [glue.row(place) for place in places]
    return [(*(row[at] for at in TEXTS.get(name, (1, 2))), row[glue.label]) for row in rows if row[glue.label] != "-"]


def seen(table):
    return table.drop("index").rows()


@pytest.mark.parametrize("name", TASKS)
def test_glues_archives(name, tmp_path, load_task, notes):
    write(name, tmp_path, sizes=(24, 12, 6))
    glue = TASKS[name]
    assert seen(load_task(name, "train")["train"]) == rows_of(name, range(24))
    dev = load_task(name, "dev")
    assert tuple(dev) == glue.dev
    settings = load_profile(name, flags={"task.data_dir": str(tmp_path)}).settings.task
    assert len(load_split(settings, task_from(settings), "dev", notes)) == sum(map(len, dev.values()))
    for begin, table in zip((24, 36), dev.values(), strict=False):
        assert seen(table) == rows_of(name, range(begin, begin + 12))
    test = load_task(name, "test")
    assert tuple(test) == glue.test
    for table in test.values():
        assert table.select("index", "label").rows() == [(str(number), None) for number in range(6)]
    assert not notes.warnings and any("layout" in info for info in notes.infos)
