"""``kd data check`` says yes where, and only where, ``kd run-all`` gets through its reading."""

import gzip
import io
import json
from datetime import date

import polars as pl
import pytest
from e2e.conftest import text

ROWS = [(text(place), place % 2) for place in range(12)]
"""Texts without a comma, a quote or a tab, and their labels."""
NAMED = {
    "huggingface": json.dumps(
        {"info": {"features": {"label": {"names": ["positive", "negative"], "_type": "ClassLabel"}}}}
    )
}


def lines(separator="\t", header=("sentence", "label"), rows=ROWS, end="\n"):
    found = [header, *rows] if header else rows
    return "".join(separator.join(map(str, row)) + end for row in found).encode()


def labelled(*labels, **more):
    return lines(rows=[(words, labels[place % len(labels)]) for place, (words, _) in enumerate(ROWS)], **more)


def jsonl(*labels):
    return b"".join(json.dumps({"sentence": words, "label": labels[label]}).encode() + b"\n" for words, label in ROWS)


def parquet(labels=pl.Int64, texts=pl.String, rows=ROWS, metadata=None):
    """Return a Parquet file; ``labels`` and ``texts`` are types, or what makes a value of a label or a text."""
    columns = {}
    for place, (name, kind) in enumerate((("sentence", texts), ("label", labels))):
        values = [row[place] for row in rows]
        typed = isinstance(kind, type | pl.DataType)
        columns[name] = pl.Series(values).cast(kind) if typed else pl.Series([kind(value) for value in values])
    stream = io.BytesIO()
    pl.DataFrame(columns).write_parquet(stream, metadata=metadata)
    return stream.getvalue()


QUOTED = b'sentence,label\n"a ""fine"" film,\nof two lines",1\n"a\tdull one",0\n' + lines(",", header=None)
GOOD = {
    "TSV": {"tsv": lines()},
    "CRLF and a BOM": {"tsv": b"\xef\xbb\xbf" + lines(end="\r\n")},
    "blank lines": {"tsv": lines() + b"\n\n"},
    "a lone CR, NUL and U+2028 in a text": {"tsv": lines() + "a\rb\u2028c\0d\t1\n".encode()},
    "the label first": {"tsv": lines(header=("label", "sentence"), rows=[(b, a) for a, b in ROWS])},
    "no header": {"tsv": lines(header=None)},
    "a column more": {"tsv": lines(header=("nr", "sentence", "label"), rows=[(n, *row) for n, row in enumerate(ROWS)])},
    "an empty text": {"tsv": lines(rows=[*ROWS, ("", 1)])},
    "a missing label": {"csv": lines(",", rows=[*ROWS, ("a film .", "")])},
    "labels by name": {"tsv": labelled("negative", "positive")},
    "a label alone": {"dev.tsv": labelled("1"), "train.tsv": lines()},
    "whole floats": {"tsv": labelled("0.0", "1.0")},
    "booleans": {"tsv": labelled("False", "True")},
    "commas": {"csv": lines(",")},
    "semicolons": {"csv": lines(";")},
    "quoted fields": {"csv": QUOTED},
    "a sep line": {"csv": b"sep=;\n" + lines(";")},
    "gzip": {"csv.gz": gzip.compress(lines(","))},
    "JSONL": {"jsonl": jsonl(0, 1)},
    "JSONL, booleans": {"jsonl": jsonl(False, True)},
    "fastText": {"txt": b"".join(f"__label__{label} {words}\n".encode() for words, label in ROWS)},
    "Parquet": {"parquet": parquet()},
    "Parquet, strings": {"parquet": parquet(pl.String)},
    "Parquet, booleans": {"parquet": parquet(pl.Boolean)},
    "Parquet, floats": {"parquet": parquet(pl.Float64)},
    "Parquet, dictionaries": {"parquet": parquet(pl.String, pl.Categorical)},
    "Parquet, a missing label": {"parquet": parquet(rows=[*ROWS, ("a film .", None)])},
    "Parquet, names in another order": {"parquet": parquet(metadata=NAMED)},
    "Parquet, texts that are bytes": {"parquet": parquet(texts=pl.Binary)},
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
    "a row too short": {"tsv": lines() + b"a film .\n"},
    "a row too long": {"tsv": lines() + b"a film .\t1\t2\n"},
    "another encoding": {"tsv": lines() + "ein schöner Film\t1\n".encode("latin-1")},
    "UTF-16": {"tsv": lines().decode().encode("utf-16")},
    "another label": {"tsv": lines(rows=[*ROWS, ("a film .", 7)])},
    "labels in other case": {"tsv": labelled("0", "1", "One")},
    "one class": {"tsv": labelled("1")},
    "no label": {"tsv": lines(header=("sentence", "colour"))},
    "other columns": {"tsv": lines(header=("a", "b", "c"), rows=[(1, *row) for row in ROWS])},
    "no dev": {"train.tsv": lines()},
    "no train": {"dev.tsv": lines()},
    "dev without labels": {"train.tsv": lines(), "dev.tsv": lines(header=("index", "sentence"))},
    "a broken test table": {"tsv": lines(), "test.tsv": b"index\tsentence\n0\n"},
    "no gzip": {"csv.gz": lines(",")},
    "an open quote": {"csv": lines(",") + b'"a film,1\n'},
    "JSONL, cut": {"jsonl": jsonl(0, 1)[:-9]},
    "JSONL, an array": {"jsonl": b"[" + jsonl("0", "1").strip().replace(b"\n", b",") + b"]"},
    "JSONL, lists": {"jsonl": jsonl([0], [1])},
    "Parquet, cut": {"parquet": parquet()[:-9]},
    "Parquet, lists": {"parquet": parquet(lambda label: [label])},
    "Parquet, structs": {"parquet": parquet(lambda label: {"value": label})},
    "Parquet, dates": {"parquet": parquet(lambda label: date(2026, 1, 1 + label))},
    "Parquet, halves": {"parquet": parquet(lambda label: label / 2)},
}


CASES = [*((name, "lite") for name in GOOD), *((name, "student") for name in BAD)]
CASES += [pytest.param(name, "student", marks=pytest.mark.slow) for name in GOOD]


@pytest.mark.parametrize(("name", "until"), CASES)
def test_both_say_the_same(tiny, name, until):
    for old in tiny.data.iterdir():
        old.unlink()
    for file, content in (GOOD | BAD)[name].items():
        named = file.startswith(("train", "validation", "dev", "test"))
        for place in [file] if named else [f"train.{file}", f"dev.{file}"]:
            (tiny.data / place).write_bytes(content)
    check = tiny.kd("data", "check", "--profile", tiny.profile)
    small = ["--set", "teacher.epochs=1", "--set", "student.epochs=1"]
    ended = tiny.stage("run-all", "--until", until, *small)
    assert (check.code, ended.code) == ((0, 0) if name in GOOD else (4, 4)), (check.out, check.err, ended.err)
