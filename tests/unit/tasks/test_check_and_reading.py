import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from kdcli.api import QuietReporter
from kdcli.config.schema import TaskSettings
from kdcli.errors import DataError
from kdcli.tasks.check import check_data
from kdcli.tasks.split import load_tables, split_files, task_from

TEXTS = ["good film", "bad", '"quoted"', 'a "b" c', '""', 'say ""no""', "x,y", "a;b", '\\"esc\\"', '"a', "中文"]
TEXTS += ["", " ", "\x1c"]
LABELS = ["0", "1", "1.0", "true", "False", "", " 1", "2", "-", "-1", "nan", "positive", "NA"]
IDS = [1, 2, "a", None, [1], 0.5]
FORMS = {"a.tsv": "\t", "b.csv": ",", "c.csv": ";", "d.jsonl": "", "e.txt": "\t", "f.txt": "fastText"}
SPLITS = ("train", "dev", "test")
CLASSES = {"labels": ("0", "1"), "names": ("negative", "positive")}
SCORES = {"score_range": (0, 1), "metric": "pearson"}


@st.composite
def tables(draw):
    form = draw(st.sampled_from(list(FORMS)))
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=2, max_size=3))
    return form, [_table(draw, form, labels) for _ in draw(st.sampled_from([SPLITS[:2], SPLITS]))]


def _table(draw, form, labels):
    rows = draw(st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(labels)), min_size=1, max_size=5))
    separator = FORMS[form]
    if form == "d.jsonl":
        ids = draw(st.one_of(st.none(), st.lists(st.sampled_from(IDS), min_size=len(rows), max_size=len(rows))))
        own = [{"id": one} for one in ids] if ids else [{}] * len(rows)
        texts = [{"sentence": text, "label": label} | more for (text, label), more in zip(rows, own, strict=True)]
        return "".join(json.dumps(text) + "\n" for text in texts)
    if separator == "fastText":
        return "".join(f"__label__{label} {text}\n" for text, label in rows)
    quoted = draw(st.booleans())
    lines = [f'"{text.replace(chr(34), 2 * chr(34))}"' if quoted else text for text, _ in rows]
    lines = [f"{text}{separator}{label}" for text, (_, label) in zip(lines, rows, strict=True)]
    header = [] if form == "e.txt" else [f"sentence{separator}label"]
    lines = header + lines
    for odd in draw(st.lists(st.sampled_from(["", "ragged"]), max_size=1)):
        lines.insert(draw(st.integers(0, len(lines))), odd)
    return "".join(f"{line}\n" for line in lines)


def agree(folder, own):
    """Return whether data check says yes, which has to be what the reader says."""
    task = task_from(own)
    fit = check_data(own, task, QuietReporter()).fit
    try:
        for split in SPLITS:
            if split != "test" or split_files(own, split):
                load_tables(own, task, split, QuietReporter())
    except DataError as error:
        assert not fit, error
    else:
        assert fit
    return fit


@settings(deadline=None, max_examples=200)
@given(
    made=tables(),
    bad_rows=st.sampled_from(["error", "skip"]),
    drop=st.sampled_from([(), ("-",)]),
    quoting=st.sampled_from(["auto", "csv", "none"]),
    kind=st.sampled_from(["classes", "classes", "scores"]),
)
def test_a_yes_of_data_check_is_one_of_the_reader(made, bad_rows, drop, quoting, kind):
    form, contents = made
    with TemporaryDirectory() as folder:
        for split, content in zip(SPLITS, contents, strict=False):
            (Path(folder) / f"{split}{Path(form).suffix}").write_text(content, "utf-8")
        own = {"data_dir": folder, "bad_rows": bad_rows, "drop_labels": drop, "quoting": quoting}
        agree(folder, TaskSettings(**own, **(CLASSES if kind == "classes" else SCORES)))


@pytest.mark.parametrize(
    ("train", "test", "fit"),
    [
        ([("a", "0", 1), ("b", "1", "x")], None, True),  # nobody needs the id of a training row
        ([("a", "0", 1), ("b", "1", 2)], [("c", "0", [1])], False),  # the predictions need that of a test row
        ([("a", "0", 1), ("", "1", 2)], None, False),  # without words there is nothing to learn
        ([("a", "0", 1), ("b", "1", 2), (" ", "2", 3)], None, False),  # a wrong label is one without words too
    ],
)
def test_rows_on_which_the_two_could_differ(tmp_path, train, test, fit):
    for split, rows in (("train", train), ("dev", [("a", "0", 1)]), ("test", test or [])):
        lines = [json.dumps({"sentence": text, "label": label, "id": one}) for text, label, one in rows]
        if rows:
            (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    assert agree(tmp_path, TaskSettings(labels=("0", "1"), data_dir=str(tmp_path))) is fit


ROWS = [(f"the film of number {place} was {('dull', 'good')[place % 2]} .", place % 2) for place in range(12)]
"""Texts without a comma, a quote or a tab, and their labels."""
FEATURES = {"label": {"names": ["positive", "negative"], "_type": "ClassLabel"}}
NAMED = {"huggingface": json.dumps({"info": {"features": FEATURES}})}


def lines(separator="\t", header=("sentence", "label"), rows=ROWS):
    return "".join(separator.join(map(str, row)) + "\n" for row in [header, *rows]).encode()


def labelled(*labels):
    return lines(rows=[(words, labels[place % len(labels)]) for place, (words, _) in enumerate(ROWS)])


def jsonl(*labels):
    return b"".join(json.dumps({"sentence": words, "label": labels[label]}).encode() + b"\n" for words, label in ROWS)


def parquet(rows=ROWS, metadata=None, **types):
    stream = io.BytesIO()
    pl.DataFrame(rows, ["sentence", "label"], orient="row").cast(types).write_parquet(stream, metadata=metadata)
    return stream.getvalue()


GOOD = {
    "a column more": {"tsv": lines(header=("nr", "sentence", "label"), rows=[(n, *row) for n, row in enumerate(ROWS)])},
    "a missing label": {"csv": lines(",", rows=[*ROWS, ("a film .", "")])},
    "a label alone": {"dev.tsv": labelled("1"), "train.tsv": lines()},
    "Parquet, a missing label": {"parquet": parquet(rows=[*ROWS, ("a film .", None)])},
    "Parquet, names in another order": {"parquet": parquet(metadata=NAMED)},
    "Parquet, texts that are bytes": {"parquet": parquet(sentence=pl.Binary)},
    "the Hub": {
        "train-00000-of-00002.parquet": parquet(),
        "train-00001-of-00002.parquet": parquet(rows=[("one more film .", 1)]),
        "validation-00000-of-00001.parquet": parquet(),
    },
    "a test table without labels": {"tsv": lines(), "test.tsv": lines(header=("index", "sentence"))},
}
BAD = {
    "empty": {"tsv": b""},
    "a header alone": {"tsv": lines(rows=[])},
    "UTF-16": {"tsv": lines().decode().encode("utf-16")},
    "labels in other case": {"tsv": labelled("0", "1", "One")},
    "no label": {"tsv": lines(header=("sentence", "colour"))},
    "other columns": {"tsv": lines(header=("a", "b", "c"), rows=[(1, *row) for row in ROWS])},
    "no dev": {"train.tsv": lines()},
    "no train": {"dev.tsv": lines()},
    "dev without labels": {"train.tsv": lines(), "dev.tsv": lines(header=("index", "sentence"))},
    "a broken test table": {"tsv": lines(), "test.tsv": b"index\tsentence\n0\n"},
    "no gzip": {"csv.gz": lines(",")},
    "JSONL, cut": {"jsonl": jsonl(0, 1)[:-9]},
    "JSONL, lists": {"jsonl": jsonl([0], [1])},
    "Parquet, cut": {"parquet": parquet()[:-9]},
    "Parquet, halves": {"parquet": parquet(rows=[(words, label / 2) for words, label in ROWS])},
    "one score in two spellings": {"tsv": labelled("1", "1.00")},
}


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_both_say_the_same_of_a_table(tmp_path, name):
    for file, content in (GOOD | BAD)[name].items():
        named = file.startswith(("train", "validation", "dev", "test"))
        for place in [file] if named else [f"train.{file}", f"dev.{file}"]:
            (tmp_path / place).write_bytes(content)
    own = SCORES if "score" in name else CLASSES
    assert agree(tmp_path, TaskSettings(data_dir=str(tmp_path), **own)) == (name in GOOD)
