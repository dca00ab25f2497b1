import dataclasses
import math
import re

import numpy as np
import polars as pl
import pytest
from notes import Notes
from raising import raising
from written import rows_of

from kdcli.api import Task
from kdcli.config.transfer import CorpusSettings
from kdcli.errors import DataError, ProfileError
from kdcli.parts import Loaded
from kdcli.tables.write import write_table
from kdcli.transfer import corpus
from kdcli.transfer.corpus import from_corpus, tfidf_nearness

SINGLE = Task("films", "single", ("0", "1"))
PAIR = Task("pairs", "pair", ("0", "1"))
TRAIN = pl.DataFrame({"sentence": ["a good film ", "dull plot", "dull plot", None], "label": ["1", "0", "0", "1"]})
DEV = pl.DataFrame({"sentence": ["held  out", "seen\u2028twice"], "label": ["1", "0"]})
TEST = pl.DataFrame({"sentence": ["of the test"]})
PAIRS = pl.DataFrame({"sentence1": ["a", "c"], "sentence2": ["b", "d"], "label": ["1", "0"]})


def put(path, content):
    path.write_bytes(content.encode())
    return str(path)


def run(output, *files, **changes):
    settings = CorpusSettings(files=files, **changes.pop("settings", {}))
    if bits := changes.pop("bits", None):
        changes["bits"] = Loaded(bits, str, ())
    arguments = {"train": TRAIN, "held_out": [DEV, TEST], "task": SINGLE, "seed": 1} | changes
    return from_corpus(settings=settings, output=output, **arguments)


def taken(path):
    return [row[0] for row in rows_of(path) if row[-2] == "corpus"]


def many(tmp_path, count=60):
    """Write texts of which one in six says what an earlier one says."""
    return put(tmp_path / "many.txt", "".join(f"text number {i - (i % 6 == 5)}\n" for i in range(count)))


def test_originals_then_new_texts_in_the_order_of_the_files(tmp_path):
    one = put(tmp_path / "one.txt", "new  one\n\n dull\tplot \nlong " + "word " * 128 + "\nnew one\nof the test\n")
    two = put(tmp_path / "two.txt", "held out\nnew\x00 one\nseen twice\n" + "w " * 128 + "\n \x85 \nlast")
    result = run(tmp_path / "set.parquet", one, two)
    originals = [("a good film ", "1"), ("dull plot", "0"), ("dull plot", "0"), ("", "1")]
    new = ["new one", ("w " * 128).strip(), "last"]
    expected = [*((text, "original", label) for text, label in originals), *((text, "corpus", None) for text in new)]
    assert rows_of(tmp_path / "set.parquet") == expected
    counts = {"blank": 2, "too_long": 1, "unpaired": 0, "duplicates": 2, "train_copies": 1, "held_out_copies": 3}
    counts |= {"read": 12, "usable": 3, "kept": 3, "originals": 4, "rows": 7, "examples": new}
    assert dataclasses.asdict(result) == counts
    assert {path.name for path in tmp_path.iterdir()} == {"one.txt", "two.txt", "set.parquet"}


@pytest.mark.parametrize("order", ["none", "tfidf", "lm"])
def test_no_copy_of_a_held_out_text_appears_whatever_its_white_space_and_controls(tmp_path, order):
    held = ["plain words", " odd \u2028 spaces\xa0here", "a \x07 bell", "\ufeffmark", "twice", "twice"]
    ways = [text.replace(" ", gap) for text in held for gap in (" ", "  ", "\t", "\x85", " \x00 ")]
    path = put(tmp_path / "a.txt", "\n".join([*ways, "a bell", "mark", "other"]))
    dev = pl.DataFrame({"sentence": held})
    how = {"settings": {"order_by": order}, "bits": lambda texts: np.ones(len(texts))}
    run(tmp_path / "set.tsv", path, held_out=[dev], **how)
    assert taken(tmp_path / "set.tsv") == ["other"]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_a_column_of_a_table(tmp_path, name):
    path, notes = tmp_path / name, Notes()
    write_table(path, pl.DataFrame({"id": [1, 2, 3], "text": ["one", None, "two words"]}))
    with raising(DataError, "no column sentence", key="transfer.corpus.columns", file=path, hint="id, text"):
        run(tmp_path / "set.tsv", str(path))
    result = run(tmp_path / "set.tsv", str(path), settings={"columns": ("text",)}, reporter=notes)
    assert taken(tmp_path / "set.tsv") == ["one", "two words"]
    assert (result.read, result.blank, notes.infos) == (3, 1, [])


@pytest.mark.parametrize(("task", "expected"), [("films", ['say "no"']), ("sst2", ['"say ""no"""'])])
def test_quotes_of_a_tsv_as_pandas_writes_them_are_no_part_of_the_text(tmp_path, task, expected):
    path = put(tmp_path / "own.tsv", 'sentence\tid\n"say ""no"""\t1\n')
    run(tmp_path / "set.parquet", path, task=dataclasses.replace(SINGLE, name=task))
    assert taken(tmp_path / "set.parquet") == expected


def test_columns_are_the_tasks_own_or_the_only_one(tmp_path, notes):
    own = put(tmp_path / "own.tsv", "id\tsentence\n1\tone\n")
    only = put(tmp_path / "only.tsv", "review\ntwo\n")
    run(tmp_path / "set.tsv", own, only, reporter=notes)
    assert taken(tmp_path / "set.tsv") == ["one", "two"]
    assert notes.infos == ["only.tsv: texts are in the column 'review'"]


def test_pairs_of_two_columns_and_of_one_tab(tmp_path):
    lines = put(tmp_path / "a.txt", "e \tf\r\na\tb\r\nno tab\r\nof\tthree\ttexts\r\n\tright\r\n\r\nd\tc\r\n")
    table = put(tmp_path / "b.tsv", "sentence2\tx\tsentence1\nf\t0\te\nh\t0\tg\n\t0\tg\nk \t0\t" + "w " * 9 + "\n")
    dev = pl.DataFrame({"sentence1": ["d"], "sentence2": ["c"]})
    settings = {"max_words": 8}
    result = run(tmp_path / "set.tsv", lines, table, train=PAIRS, held_out=[dev], task=PAIR, settings=settings)
    assert rows_of(tmp_path / "set.tsv") == [
        ("a", "b", "original", "1"),
        ("c", "d", "original", "0"),
        ("e", "f", "corpus", ""),
        ("g", "h", "corpus", ""),
    ]
    assert (result.read, result.unpaired, result.blank, result.too_long) == (11, 2, 3, 1)
    assert (result.duplicates, result.train_copies, result.held_out_copies) == (1, 1, 1)
    assert result.examples == ["e | f", "g | h"]
    named = put(tmp_path / "c.csv", 'q,a\n"x, y",z\n')
    run(tmp_path / "set.jsonl.gz", named, train=PAIRS, held_out=[], task=PAIR, settings={"columns": ("a", "q")})
    assert rows_of(tmp_path / "set.jsonl.gz")[2:] == [("z", "x, y", "corpus", None)]


def test_a_number_is_taken_at_random_as_the_seed_says_and_all_where_there_are_fewer(tmp_path, notes):
    path = many(tmp_path)
    whole, chosen = [f"text number {i}" for i in range(60) if i % 6 != 5], []
    for seed in (1, 1, 2):
        result = run(tmp_path / "set.tsv", path, seed=seed, settings={"num_samples": 20})
        chosen.append(taken(tmp_path / "set.tsv"))
        assert (result.usable, result.kept, result.rows, len(set(chosen[-1]))) == (50, 20, 24, 20)
        assert chosen[-1] == [text for text in whole if text in chosen[-1]], "the order of the files"
    assert chosen[0] == chosen[1] != chosen[2]
    for asked in (51, 50):
        result = run(tmp_path / "set.tsv", path, settings={"num_samples": asked}, reporter=notes)
        assert (result.kept, taken(tmp_path / "set.tsv")) == (50, whole)
    assert notes.warnings == ["there are 50 texts to take, and num_samples is 51: all are taken"]


def test_each_text_is_as_likely_to_be_taken():
    keep = np.array([True] * 6 + [False] * 3 + [True] * 4)
    counts = sum(corpus.at_random(keep, 3, seed).astype(int) for seed in range(1000))
    assert counts[~keep].tolist() == [0] * 3
    # 300 each; 27.9 is the 99.9 % point of chi-square with 9 degrees of freedom, and draws of several vary less.
    assert ((counts[keep] - 300) ** 2 / 300).sum() < 27.9


@pytest.mark.parametrize("order", ["none", "tfidf", "lm"])
def test_the_size_of_a_batch_changes_nothing(tmp_path, monkeypatch, order):
    path = many(tmp_path)
    settings = {"num_samples": 15, "order_by": order}

    def bits(texts):
        return np.array([float(text.split()[-1]) % 7 for text in texts])

    train = pl.DataFrame({"sentence": [f"number {i}" for i in range(9)], "label": ["1"] * 9})
    run(tmp_path / "a.tsv", path, settings=settings, bits=bits, train=train)
    for name, size in (("_ROWS", 7), ("ROWS", 4), ("ASKED", 3)):
        monkeypatch.setattr(corpus, name, size)
    run(tmp_path / "b.tsv", path, settings=settings, bits=bits, train=train)
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


@pytest.mark.parametrize("count", [0, 2])
def test_the_nearest_by_the_generator_come_first(tmp_path, count):
    path = put(tmp_path / "a.txt", "aaaa\nbbbbbbbb\ncc\ndddd\naaaa\n")
    asked = []

    def bits(texts):
        asked.extend(texts)
        return np.full(len(texts), 8.0)

    result = run(tmp_path / "set.tsv", path, settings={"order_by": "lm", "num_samples": count}, bits=bits)
    nearest_first = ["bbbbbbbb", "aaaa", "dddd", "cc"]
    assert taken(tmp_path / "set.tsv") == result.examples == nearest_first[: count or None]
    assert asked == ["aaaa", "bbbbbbbb", "cc", "dddd"], "each is asked about once"


def test_the_nearest_by_tfidf_come_first(tmp_path):
    train = pl.DataFrame({"sentence": ["funny film", "film with a plot", "sad film"], "label": ["1"] * 3})
    path = put(tmp_path / "a.txt", "rain in spain\nthe film\nplot of rain\nfunny sad film\n")
    settings = {"order_by": "tfidf", "num_samples": 3}
    result = run(tmp_path / "set.tsv", path, train=train, settings=settings)
    # The centroid is (film: largest, then funny, sad, plot alike); "rain" is no word of the task.
    assert taken(tmp_path / "set.tsv") == result.examples
    assert (set(result.examples[:2]), result.examples[2]) == ({"the film", "funny sad film"}, "plot of rain")
    pairs = pl.DataFrame({"sentence1": ["funny film"], "sentence2": ["sad plot"], "label": ["1"]})
    path = put(tmp_path / "b.txt", "rain\train\nfilm\tplot\nrain\tplot\n")
    result = run(tmp_path / "p.tsv", path, train=pairs, held_out=[], task=PAIR, settings={"order_by": "tfidf"})
    assert result.examples == ["film | plot", "rain | plot", "rain | rain"]


def test_bad_rows_are_an_error_or_counted(tmp_path, notes):
    path = put(tmp_path / "a.tsv", "sentence\tx\none\t1\nragged\ntwo\t2\n")
    with raising(DataError, row=3, file=path):
        run(tmp_path / "set.tsv", path)
    run(tmp_path / "set.tsv", path, bad_rows="skip", reporter=notes)
    assert taken(tmp_path / "set.tsv") == ["one", "two"]
    assert ["1 bad rows skipped, the first is row 3" in warning for warning in notes.warnings] == [True]


def test_an_original_that_the_form_cannot_hold_is_an_error_before_the_work(tmp_path, monkeypatch):
    train = pl.DataFrame({"sentence": ["a\tb"], "label": ["1"]})
    monkeypatch.setattr(corpus, "_read", None)
    (tmp_path / "set.tsv").write_text("old\n")
    with pytest.raises(DataError, match="tab"):
        run(tmp_path / "set.tsv", many(tmp_path), train=train)
    assert (tmp_path / "set.tsv").read_text() == "old\n"


FAULTS = {
    "no files": ((), {}, ProfileError, "no files", None, "transfer.corpus.files"),
    "missing": (("no.txt",), {}, DataError, "no such file", "no.txt", None),
    "no such column": (("a.csv",), {"columns": ("texts",)}, DataError, "no column 'texts'", "a.csv", "texts"),
    "numbers": (("a.jsonl",), {"columns": ("n",)}, DataError, "holds Int64, not texts", "a.jsonl", "n"),
    "two columns": (("a.csv",), {"columns": ("a", "b")}, ProfileError, "takes 1 text column, and 2", None, None),
    "nothing left": (("old.txt",), {}, DataError, "nothing is left of the 3", "old.txt", "transfer.corpus.files"),
    "no bits": (("a.txt",), {"order_by": "lm"}, ProfileError, "bits of a text", None, "transfer.corpus.order_by"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_names_the_file_and_the_key(tmp_path, fault):
    files, settings, kind, what, file, key = FAULTS[fault]
    put(tmp_path / "a.txt", "new\n")
    put(tmp_path / "a.csv", "a,b\nx,y\n")
    put(tmp_path / "a.jsonl", '{"n": 1}\n')
    put(tmp_path / "old.txt", "dull plot\n\nheld out\n")
    with raising(kind, what, file=file and tmp_path / file, **({"key": key} if key else {})):
        run(tmp_path / "set.tsv", *(str(tmp_path / name) for name in files), settings=settings)
    assert not list(tmp_path.glob("*set*"))


TASK = ["The film film film is good", "a dull plot", "Good plot , good film !", "of the"]
TEXTS = ["good GOOD film", "the plot of a film", "dull", "unseen words", "the of and", "film film film plot good"]
FUNCTION_WORDS = {"the", "is", "a", "of", "and"}


def by_hand(task, texts):
    """Compute the cosines from the definitions: (1 + ln tf) * (1 + ln((1 + n) / (1 + df))), of length 1."""

    def words(text):
        return [word for word in re.findall(r"\w\w+", text.lower()) if word not in FUNCTION_WORDS]

    terms = sorted({word for text in task for word in words(text)})
    idf = {t: 1 + math.log((1 + len(task)) / (1 + sum(t in words(text) for text in task))) for t in terms}

    def vector(text):
        found = words(text)
        weights = [(1 + math.log(found.count(t))) * idf[t] if t in found else 0.0 for t in terms]
        return np.array(weights) / (np.linalg.norm(weights) or 1)

    centroid = np.mean([vector(text) for text in task], axis=0)
    return [float(vector(text) @ centroid / np.linalg.norm(centroid)) for text in texts]


def test_tfidf_is_what_the_definitions_give():
    found = tfidf_nearness(TASK)(TEXTS)
    np.testing.assert_allclose(found, by_hand(TASK, TEXTS), rtol=1e-9, atol=1e-12)
    assert found[3] == found[4] == 0 < found.max() <= 1


@pytest.mark.parametrize("task", [[], ["of the", "!"]])
def test_a_task_without_words_is_an_error(task):
    with raising(DataError, "no words", key="transfer.corpus.order_by"):
        tfidf_nearness(task)
