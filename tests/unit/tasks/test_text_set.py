import gzip

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from raising import raising

from kdcli.api import QuietReporter, Task
from kdcli.errors import DataError
from kdcli.tables.read import ROW_NUMBER
from kdcli.tasks.text_set import form_of_set, open_texts

SINGLE = Task("t", "single", ("0", "1"))
PAIR = Task("t", "pair", ("0", "1"))


def texts(path, task, alone=False):
    """Return the rows, each the texts of the task, and their numbers in the file."""
    frame = open_texts(path, task, QuietReporter())
    found = (frame.select(*task.columns, ROW_NUMBER) if alone else frame).collect()
    return found.select(task.columns).rows(), found[ROW_NUMBER].to_list()


def write(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode())
    return tmp_path / name


@pytest.mark.parametrize("name", ["set.txt", "set.tsv", "set.txt.gz"])
def test_one_text_a_line(tmp_path, name):
    content = "the film is good\n\nbad\n [MASK] good \n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    # Nothing is left out, so that logits by position fit.
    assert texts(path, SINGLE) == ([("the film is good",), ("",), ("bad",), (" [MASK] good ",)], [1, 2, 3, 4])


@pytest.mark.parametrize("name", ["set.txt", "set.tsv"])
def test_two_texts_a_line(tmp_path, name):
    path = write(tmp_path, name, "how are you ?\twho is it ?\na \t b\n")  # augment_paired_data; sample_gpt
    assert texts(path, PAIR) == ([("how are you ?", "who is it ?"), ("a", "b")], [1, 2])


def test_marks_of_the_samplers(tmp_path):
    path = write(tmp_path, "gpt.txt", "it 's good .<|endoftext|>\n<eos> is a word\nfine <eos>\n")
    assert [row for (row,) in texts(path, SINGLE)[0]] == ["it 's good .", "<eos> is a word", "fine"]
    path = write(tmp_path, "transfo.txt", "who is it ? <eos> it is me . <eos>\na b \t c d<|endoftext|>\n")
    assert texts(path, PAIR)[0] == [("who is it ?", "it is me ."), ("a b", "c d")]


@pytest.mark.parametrize(
    ("header", "task"),
    [
        ("sentence", SINGLE),
        ("label\tsentence\tlogits_0\tlogits_1", SINGLE),
        ("sentence1\tsentence2\tlogits_0\tlogits_1", PAIR),
        ("is_duplicate\tquestion1\tquestion2\tlogits_0\tlogits_1", PAIR),
        ("index\tquestion\tsentence\tlabel\tlogits_0\tlogits_1", PAIR),
        ("gold_label\tsentence1\tsentence2\tlogits_0\tlogits_1\tlogits_2", PAIR),
        ("sentence1\tsentence2\tscore", PAIR),
    ],
)
@pytest.mark.parametrize("name", ["set.txt", "set.tsv"])
@pytest.mark.parametrize("alone", [False, True])
def test_headers_of_dbert(tmp_path, header, task, name, alone):
    columns = header.split("\t")
    wanted = [column for column in columns if column.startswith(("sentence", "question"))]
    rows = [[f"{column} {row}" for column in columns] for row in range(2)]
    path = write(tmp_path, name, "\n".join([header, *("\t".join(row) for row in rows)]) + "\n")
    expected = [tuple(f"{column} {row}" for column in wanted) for row in range(2)]
    assert texts(path, task, alone=alone) == (expected, [2, 3])


def test_names_of_columns_are_no_texts_and_single_texts_no_pairs(tmp_path):
    for name, content, task in (("a.tsv", "text\ngood film\n", SINGLE), ("b.tsv", "one\ttwo\na b\tc\n", PAIR)):
        hint = "a file of plain lines, without a header, is a .txt"
        with raising(DataError, "there is no column 'sentence", hint=hint):
            open_texts(write(tmp_path, name, content), task, QuietReporter())
    assert form_of_set(write(tmp_path, "a.csv", "a film,b\n"), SINGLE) == "csv"
    assert form_of_set(write(tmp_path, "a.txt", "sentence\nx\n"), SINGLE) == "tsv"
    assert form_of_set(write(tmp_path, "b.txt", "\ufeffsentence\nx\n"), SINGLE) == "tsv"
    with raising(DataError, "one tab between them", row=1):
        texts(write(tmp_path, "texts.txt", "a film\n"), PAIR)
    with pytest.raises(DataError, match="no column 'sentence'"):
        texts(write(tmp_path, "pairs.tsv", "a film\tb film\n"), SINGLE)


@pytest.mark.parametrize("line", ["no tab here", "a\tb\tc", "a\t\tb", "a <eos> b <eos> c <eos>"])
def test_a_line_that_is_no_pair_is_named(tmp_path, line):
    path = write(tmp_path, "pairs.txt", f"a good one\tanother\n{line}\n")
    with raising(DataError, "one tab between them", row=2, hint="kd transfer corpus"):
        texts(path, PAIR)


WORDS = st.text(st.sampled_from("ab<>|eosx. [MASK]\u00e9"), min_size=1, max_size=20)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, min_size=1, max_size=6))
def test_other_texts_stay_as_they_are(tmp_path, lines):
    def ends_in_mark(text):
        return text.rstrip().endswith(("<eos>", "<|endoftext|>"))

    path = write(tmp_path, "set.txt", "".join(f"{line}\n" for line in lines))
    found = [row for (row,) in texts(path, SINGLE)[0]]
    assert len(found) == len(lines)
    assert all(one == line for one, line in zip(found, lines, strict=True) if not ends_in_mark(line))
