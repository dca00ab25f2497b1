import pyarrow as pa
import pytest

from kdcli.api import Task
from kdcli.errors import DataError, ProfileError
from kdcli.transfer.cache import CacheResult, cache, read_corpus

SINGLE = Task("films", "single", ("0", "1"))
PAIR = Task("pairs", "pair", ("no", "yes"))
SCORE = Task("likeness", "pair", (), score_range=(0.0, 5.0), metric="pearson")


def table(rows, columns=("sentence",)) -> pa.Table:
    """Make a table of rows (texts and label)."""
    *texts, labels = zip(*rows, strict=True)
    names = (*columns, "label")
    return pa.table({name: pa.array(values, pa.string()) for name, values in zip(names, [*texts, labels], strict=True)})


TRAIN = table([("a good film", "1"), ("dull\tplot", "0"), ("  ", "1"), (" two\r\nlines ", "0"), ("", "0")])
DEV = table([("dev one", "1"), ("dev\u2028two", "0")])
TEST = table([("test one", None), ("test two", None)])
ALL = {"train": TRAIN, "dev": DEV, "test": TEST}


class Said:
    def __init__(self):
        self.warned = []

    def warn(self, message):
        self.warned.append(message)


def test_one_text_a_line_and_nothing_else(tmp_path):
    said = Said()
    result = cache(splits=ALL, task=SINGLE, output=tmp_path / "cache", reporter=said)
    assert (tmp_path / "cache" / "train.txt").read_bytes() == b"a good film\ndull plot\ntwo lines\n"
    assert (tmp_path / "cache" / "dev.txt").read_bytes() == b"dev one\ndev two\n"
    assert (tmp_path / "cache" / "test.txt").read_bytes() == b"test one\ntest two\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cache", "dev.txt", "test.txt", "train.txt"]
    assert result == CacheResult(train=3, dev=2, test=2, blank=2, characters=59, words=15)
    assert said.warned == ["2 rows have a blank text and are left out of the cache"]
    corpus = read_corpus(tmp_path / "cache", SINGLE)
    assert corpus.train == ["a good film", "dull plot", "two lines"]
    assert (corpus.kind, corpus.dev, corpus.test) == ("single", ["dev one", "dev two"], ["test one", "test two"])


def test_pairs_have_exactly_one_tab(tmp_path):
    columns = ("sentence1", "sentence2")
    train = table([("a\tb", "c\td\n", "no"), ("", "right", "yes"), ("left", " \t", "no"), ("e", "f", "yes")], columns)
    result = cache(splits={"train": train, "dev": train}, task=PAIR, output=tmp_path / "cache")
    corpus = read_corpus(tmp_path / "cache", PAIR)
    assert corpus.train == corpus.dev == ["a b\tc d", "e\tf"]
    assert (result.train, result.blank) == (2, 4)


def test_without_a_test_split_its_file_is_empty(tmp_path):
    result = cache(splits={"train": TRAIN, "dev": DEV}, task=SINGLE, output=tmp_path / "cache")
    assert result.test == 0
    assert (tmp_path / "cache" / "test.txt").read_bytes() == b""
    assert read_corpus(tmp_path / "cache", SINGLE).test == []


def test_a_chosen_label_where_there_are_labels(tmp_path):
    result = cache(splits=ALL, task=SINGLE, labels=["0"], output=tmp_path / "cache")
    corpus = read_corpus(tmp_path / "cache", SINGLE)
    assert (corpus.train, corpus.dev) == (["dull plot", "two lines"], ["dev two"])
    assert corpus.test == ["test one", "test two"], "the test texts have no labels to choose by"
    assert (result.train, result.blank) == (2, 1)


def test_what_odd_characters_a_text_has_stays(tmp_path):
    texts = ["naïve 日本 \U0001f600", "a\x85b\x0bc", "nul\x00 and\xa0no break"]
    split = table([(text, "1") for text in texts])
    cache(splits={"train": split, "dev": split}, task=SINGLE, output=tmp_path / "cache")
    assert read_corpus(tmp_path / "cache", SINGLE).train == [texts[0], "a b c", texts[2]]


@pytest.mark.parametrize(("task", "says"), [(SINGLE, "0, 1"), (SCORE, "it has scores")])
def test_an_unknown_label_is_an_error_before_anything_is_written(tmp_path, task, says):
    with pytest.raises(ProfileError, match="no label '2'") as error:
        cache(splits=ALL, task=task, labels=["0", "2"] if task is SINGLE else ["2"], output=tmp_path / "cache")
    assert error.value.key == "transfer.heavy.labels" and says in error.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("splits", "labels", "says", "key"),
    [
        ({"train": table([(" ", "1")]), "dev": DEV}, (), "the train set has no texts", None),
        ({"train": TRAIN, "dev": table([("", "1")])}, (), "the dev set has no texts", None),
        ({"train": TRAIN}, (), "the dev set has no texts", None),
        (
            {"train": TRAIN, "dev": table([("only", "1")])},
            ("0",),
            "the dev set has no texts of label 0",
            "transfer.heavy.labels",
        ),
    ],
)
def test_an_empty_corpus_is_an_error(tmp_path, splits, labels, says, key):
    with pytest.raises(DataError, match=says) as error:
        cache(splits=splits, task=SINGLE, labels=labels, output=tmp_path / "cache")
    assert error.value.key == key
    assert not list(tmp_path.iterdir())


def test_it_is_replaced_whole(tmp_path):
    cache(splits=ALL, task=SINGLE, output=tmp_path / "cache")
    (tmp_path / "cache" / "stray").touch()
    cache(splits={"train": DEV, "dev": DEV}, task=SINGLE, output=tmp_path / "cache")
    assert read_corpus(tmp_path / "cache", SINGLE).train == ["dev one", "dev two"]
    assert not (tmp_path / "cache" / "stray").exists()


def damage(folder, how):
    train = folder / "train.txt"
    content = train.read_bytes()
    if how == "missing":
        train.unlink()
    elif how == "cut":
        train.write_bytes(content[:-3])
    elif how == "a blank line":
        train.write_bytes(b"\n" + content)
    elif how == "a tab too many":
        train.write_bytes(content.replace(b"good ", b"good\t"))
    else:
        train.write_bytes(b"caf\xe9\n")


@pytest.mark.parametrize("how", ["missing", "cut", "a blank line", "a tab too many", "not UTF-8"])
def test_what_is_no_cache_is_an_error_that_names_the_command(tmp_path, how):
    cache(splits=ALL, task=SINGLE, output=tmp_path / "cache")
    damage(tmp_path / "cache", how)
    with pytest.raises(DataError, match="no cache of single texts") as error:
        read_corpus(tmp_path / "cache", SINGLE)
    assert error.value.file == str(tmp_path / "cache")
    assert "--only cache --force" in error.value.hint


def test_single_texts_are_no_pairs(tmp_path):
    cache(splits=ALL, task=SINGLE, output=tmp_path / "cache")
    with pytest.raises(DataError, match=r"line 1 of train\.txt is none"):
        read_corpus(tmp_path / "cache", PAIR)
