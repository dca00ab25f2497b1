"""``kd data check`` says yes where, and only where, a run gets through its reading."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.api import QuietReporter
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tasks.check import check_data
from kdcli.tasks.split import load_tables, task_from

TEXTS = ["good film", '"quoted"', 'a "b" c', '""', 'say ""no""', "x,y", "a;b", '\\"esc\\"', '"a', "C:\\", "中文"]
LABELS = ["0", "1", "1.0", "true", "False", "", " 1", "2", "-", "-1", "nan", "positive", "NA"]
FORMS = {"a.tsv": "\t", "b.csv": ",", "c.csv": ";", "d.jsonl": "", "e.txt": "\t", "f.txt": "fastText"}


@st.composite
def tables(draw):
    form = draw(st.sampled_from(list(FORMS)))
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=2, max_size=3))
    return form, [_table(draw, form, labels) for _ in range(2)]


def _table(draw, form, labels):
    rows = draw(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(labels)), min_size=1, max_size=5))
    separator = FORMS[form]
    if form == "d.jsonl":
        return "".join(json.dumps({"sentence": text, "label": label}) + "\n" for text, label in rows)
    if separator == "fastText":
        return "".join(f"__label__{label} {text}\n" for text, label in rows)
    quoted = draw(st.booleans())
    lines = [f'"{text.replace(chr(34), 2 * chr(34))}"' if quoted else text for text, _ in rows]
    lines = [f"{text}{separator}{label}" for text, (_, label) in zip(lines, rows, strict=True)]
    for odd in draw(st.lists(st.sampled_from(["", "ragged"]), max_size=1)):
        lines.insert(draw(st.integers(0, len(lines))), odd)
    header = [] if form == "e.txt" else [f"sentence{separator}label"]
    return "".join(f"{line}\n" for line in header + lines)


@settings(deadline=None, max_examples=150)
@given(
    made=tables(),
    bad_rows=st.sampled_from(["error", "skip"]),
    drop=st.sampled_from([(), ("-",)]),
    quoting=st.sampled_from(["auto", "csv", "none"]),
)
def test_a_yes_of_data_check_is_one_of_the_reader(made, bad_rows, drop, quoting):
    form, contents = made
    with TemporaryDirectory() as folder:
        for split, content in zip(("train", "dev"), contents, strict=True):
            (Path(folder) / f"{split}{Path(form).suffix}").write_text(content, "utf-8")
        own = TaskSettings(
            labels=("0", "1"),
            names=("negative", "positive"),
            data_dir=folder,
            bad_rows=bad_rows,
            drop_labels=drop,
            quoting=quoting,
        )
        fit = check_data(own, task_from(own), QuietReporter()).fit
        try:
            for split in ("train", "dev"):
                load_tables(own, task_from(own), split, QuietReporter())
        except DataError:
            assert not fit
        else:
            assert fit
