import re
import statistics
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from kdcli import tables
from kdcli.api import QuietReporter
from kdcli.config.schema import TaskSettings
from kdcli.tables.write import write_table
from kdcli.tasks.check import check_data
from kdcli.tasks.split import task_from

LABELS = ("no", "yes", "maybe")
LETTERS = "aAbZz[@{`é\u00c9\u00dfжЖ ,"
ODD = "\0\x1b\x7f\r\x85\xa0\u00ad\u200b\u2028\ufeff\ufffd\x1c\u3000"
COLUMNS = ("sentence1", "sentence2", "label")
texts = st.lists(st.sampled_from([*LETTERS, *ODD, "  ", "word", "another "]), max_size=12).map("".join)
rows = st.lists(st.tuples(texts, texts, st.sampled_from([*LABELS, "", "-", "odd"])), max_size=25)
slow_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def check(folder, **changes):
    settings = {"name": "pairs", "kind": "pair", "labels": LABELS, "data_dir": str(folder), "drop_labels": ("-",)}
    task_settings = TaskSettings(**settings | changes)
    return check_data(task_settings, task_from(task_settings), QuietReporter(), max_words=3)


def put(folder, form, **splits):
    for split, values in splits.items():
        if form == "tsv":
            # write_table would refuse texts that end in a carriage return.
            lines = ["\t".join(row) for row in [COLUMNS, *values]]
            (folder / f"{split}.tsv").write_bytes("".join(f"{line}\n" for line in lines).encode())
            continue
        columns = [[row[place] for row in values] for place in range(len(COLUMNS))]
        write_table(folder / f"{split}.{form}", pl.DataFrame(columns, dict.fromkeys(COLUMNS, pl.String)))


def normal(text):
    return "".join(letter.lower() for letter in " ".join(text.split()))


@pytest.mark.parametrize(("form", "block"), [("jsonl", 0), ("parquet", 0), ("tsv", 64), ("tsv", 1 << 19)])
@slow_files
@given(rows, rows)
def test_every_statistic_is_that_of_plain_python(tmp_path_factory, monkeypatch, form, block, train, dev):
    if block:
        monkeypatch.setattr(tables, "BLOCK", block)
    assume(form != "jsonl" or (train and dev))  # it would be an empty file
    folder = tmp_path_factory.mktemp("data")
    put(folder, form, train=train, dev=dev)
    report = check(folder)
    for found, values in zip(report.tables, (train, dev), strict=True):
        compare(found, list(enumerate(values, 2 if form == "tsv" else 1)))
    kept = [[row for row in values if row[2] != "-"] for values in (train, dev)]
    compare_overlap(report.overlaps[0], *kept)


def compare(found, numbered):
    """Compare what was found in a table with its rows and their numbers."""
    kept = [(row, a, b, label) for row, (a, b, label) in numbered if label != "-"]
    assert found.rows == len(kept)
    assert sum(found.dropped.values()) == len(numbered) - len(kept)
    if kept:
        compare_labels(found.labels, [(row, label) for row, _, _, label in kept])
    for column, words in enumerate(found.words.values(), 1):
        lengths = [len(row[column].split()) for row in kept]
        assert (words.min, words.max) == (min(lengths), max(lengths))
        assert words.mean == pytest.approx(statistics.fmean(lengths))
        assert (words.median, words.p95, words.p99) == pytest.approx(np.quantile(lengths, [0.5, 0.95, 0.99]))
        assert words.longer == sum(length > 3 for length in lengths)
    compare_texts(found, [(row, text) for row, a, b, _ in kept for text in (a, b)])
    compare_repeats(found, kept)


def compare_labels(found, rows):
    counts = Counter(label for _, label in rows)
    assert {one.label: one.count for one in found.known} == {label: counts[label] for label in LABELS}
    assert [one.count for one in found.others] == [counts["odd"]] * (counts["odd"] > 0)
    shares = [one.share for one in [*found.known, *found.others]]
    assert sum(shares) == pytest.approx(1 if len(rows) > counts[""] else 0)
    for finding, label in ((found.outside, "odd"), (found.missing, "")):
        assert finding.first_row == min((row for row, one in rows if one == label), default=None)
        assert finding.count == counts[label]


def compare_texts(found, rows):
    for finding, test in (
        (found.empty, lambda text: text == ""),
        (found.edges, lambda text: text != text.strip()),
        (found.breaks, lambda text: bool(re.search("[\t\n\r]", text))),
        (found.characters, lambda text: bool(set(text) & (set(ODD) - {"\u3000", "\r"}))),
    ):
        where = [row for row, text in rows if test(text)]
        assert (finding.count, finding.first_row) == (len(where), min(where, default=None))


def compare_repeats(found, rows):
    groups = {}
    for row, a, b, label in rows:
        if a.split() and b.split():
            groups.setdefault((a, b), []).append((row, label))
    again = [group for group in groups.values() if len(group) > 1]
    assert (found.repeated.texts, found.repeated.rows) == (len(again), sum(len(group) - 1 for group in again))
    assert found.repeated.example == min(((group[0][0], group[1][0]) for group in again), default=None)
    several = [group for group in again if len({label for _, label in group if label}) > 1]
    assert (found.conflicts.texts, found.conflicts.rows) == (len(several), sum(map(len, several)))
    if several:
        first, other = found.conflicts.example
        assert first == min(row for group in several for row, label in group if label)
        labels = next(dict(group) for group in several if first in dict(group))
        assert labels[other] not in ("", labels[first])


def compare_overlap(found, train, dev):
    there = {(a, b) for a, b, _ in train}
    alike = {(normal(a), normal(b)) for a, b in there}
    assert found.rows == sum((a, b) in there for a, b, _ in dev)
    assert found.alike == sum((normal(a), normal(b)) in alike for a, b, _ in dev)


@slow_files
@given(st.lists(st.floats(0, 5, width=32), min_size=1, max_size=30))
def test_scores_are_described(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("data")
    lines = ["sentence1\tsentence2\tscore", *(f"a\tb\t{value!r}" for value in values), ""]
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(lines))
    scores = check(folder, labels=(), score_range=(0, 5), metric="pearson", drop_labels=()).tables[0].scores
    assert (scores.min, scores.max) == (min(values), max(values))
    assert scores.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
