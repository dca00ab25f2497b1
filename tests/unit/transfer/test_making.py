import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.transfer import making
from kdcli.transfer.keys import keys
from kdcli.transfer.making import MakePart, Slice, plan, read_blocks
from kdcli.transfer.rules import Rules
from kdcli.transfer.tagging import TagPart
from kdcli.transfer.unigrams import count_unigrams

ALL = Rules(0.3, 0.3, 0.3, 1, 3)
FIRST = ["the good film", "", "a bad  plot , really", "one"]
SECOND = ["is it good ?", "it 's", "no", "two words here"]


@pytest.fixture
def maker(tmp_path):
    """Tag the texts given (column name -> texts) with the pattern tagger, then make all of them into one part."""

    def make(columns: dict[str, list[str]], rules: Rules, n_iter: int, seed: int = 1):
        texts, counts, tagged = tmp_path / "texts.arrow", tmp_path / "unigrams.arrow", tmp_path / "tags.arrow"
        store(texts, pa.record_batch({name: pa.array(column, pa.string()) for name, column in columns.items()}))
        TagPart(texts, "pattern", "whitespace")(0, tagged)
        store(counts, count_unigrams([tagged], list(columns)).combine_chunks().to_batches()[0])
        rows = len(next(iter(columns.values())))
        return MakePart(texts, counts, (tagged,), (Slice(0, 0, rows), Slice(0, 0, rows)), rules, n_iter, seed)

    return make


def store(path, batch):
    with pa.ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)


def rows_of(path) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for block in read_blocks(path) for row in block.texts.to_pylist()]


@settings(deadline=None)
@given(st.integers(0, 20_000), st.integers(1, 400))
def test_plan_makes_each_row_once_in_order(rows, n_iter):
    slices = plan(rows, n_iter)
    made = [taken.tagged * making.ROWS + taken.first + row for taken in slices for row in range(taken.rows)]
    assert made == list(range(rows))
    assert all(taken.first + taken.rows <= making.ROWS for taken in slices)
    assert all(taken.rows * n_iter <= making.TEXTS + n_iter for taken in slices)


def test_plan_of_no_texts():
    assert plan(10_000, 0) == []
    assert len(plan(3, 1_000_000)) == 3


def test_texts_of_a_row_stand_together(maker, tmp_path):
    maker({"sentence": FIRST}, Rules(0, 0, 0, 1, 5), 3)(0, tmp_path / "part.arrow")
    assert rows_of(tmp_path / "part.arrow") == [(text,) for text in FIRST for _ in range(3)]


def test_pairs_change_first_then_second_then_both(maker, tmp_path):
    maker({"sentence1": FIRST, "sentence2": SECOND}, Rules(1, 0, 0, 1, 5), 7)(0, tmp_path / "part.arrow")
    made = iter(rows_of(tmp_path / "part.arrow"))
    for first, second in zip(FIRST, SECOND, strict=True):
        for turn in range(7):
            masks = [" ".join(["[MASK]"] * len(text.split())) for text in (first, second)]
            if "  " in first:
                masks[0] = "[MASK] [MASK]  [MASK] [MASK] [MASK]"
            expected = [(masks[0], second), (first, masks[1]), (masks[0], masks[1])][turn % 3]
            assert next(made) == expected


def test_n_grams_of_pairs_are_taken_of_the_side_whose_turn_it_is(maker, tmp_path):
    columns = {"sentence1": ["a b c d e f g h"], "sentence2": ["1 2 3 4 5 6 7 8"]}
    maker(columns, Rules(0, 0, 1, 2, 2), 90)(0, tmp_path / "part.arrow")
    lengths = [tuple(len(text.split()) for text in row) for row in rows_of(tmp_path / "part.arrow")]
    assert lengths == [(2, 8), (8, 2), (2, 2)] * 30


def test_part_depends_on_seed_and_number_alone(maker, tmp_path):
    make = maker({"sentence": FIRST}, ALL, 50)
    for name, part in (("a", 0), ("b", 1), ("c", 0)):
        make(part, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()
    assert rows_of(tmp_path / "b") != rows_of(tmp_path / "a")  # the same rows, but another part
    maker({"sentence": FIRST}, ALL, 50, seed=2)(0, tmp_path / "d")
    assert rows_of(tmp_path / "d") != rows_of(tmp_path / "a")


def test_blocks_are_bounded_and_hold_all_texts(maker, tmp_path, monkeypatch):
    make = maker({"sentence1": FIRST, "sentence2": SECOND}, Rules(0, 0, 0, 1, 5), 40)
    make(0, tmp_path / "one.arrow")
    monkeypatch.setattr(making, "BLOCK", 50)
    make(0, tmp_path / "many.arrow")
    blocks = list(read_blocks(tmp_path / "many.arrow"))
    assert len(list(read_blocks(tmp_path / "one.arrow"))) == 1
    assert len(blocks) > 5
    assert all(block.counts["words"] <= 60 for block in blocks)
    assert rows_of(tmp_path / "many.arrow") == rows_of(tmp_path / "one.arrow")


def test_keys_do_not_see_white_space(maker, tmp_path):
    maker({"sentence": ["a  b", "a b "]}, Rules(0, 0, 0, 1, 5), 1)(0, tmp_path / "odd")
    maker({"sentence": ["a b", " a b"]}, Rules(0, 0, 0, 1, 5), 1)(0, tmp_path / "usual")
    found = [key for name in ("odd", "usual") for block in read_blocks(tmp_path / name) for key in block.keys]
    assert set(found) == set(keys([pa.array(["a b"])]))


def test_counts_and_examples_tell_what_was_done(maker, tmp_path):
    maker({"sentence": FIRST}, ALL, 100)(0, tmp_path / "part.arrow")
    (block,) = read_blocks(tmp_path / "part.arrow")
    texts = [row["sentence"] for row in block.texts.to_pylist()]
    assert block.counts["words"] == sum(len(text.split()) for text in texts)
    assert block.counts["words_masked"] == sum(text.split().count("[MASK]") for text in texts)
    lengths = np.repeat([len(text.split()) for text in FIRST], 100)
    assert block.counts["texts_cut"] == sum(len(text.split()) < n for text, n in zip(texts, lengths, strict=True))
    assert 0.25 < block.counts["words_replaced"] / block.counts["words"] < 0.35
    assert {rule for example in block.examples for rule in example["rules"]} == {"masked", "replaced", "cut"}
    for example in block.examples:
        assert example["after"] == texts[example["row"]]
        assert example["before"] == FIRST[example["row"] // 100]
        assert ("masked" in example["rules"]) == ("[MASK]" in example["after"])


def test_examples_of_a_pair_show_both_texts(maker, tmp_path):
    maker({"sentence1": ["a"], "sentence2": ["b"]}, Rules(1, 0, 0, 1, 5), 1)(0, tmp_path / "part.arrow")
    (block,) = read_blocks(tmp_path / "part.arrow")
    assert block.examples == [{"row": 0, "rules": ["masked"], "before": "a | b", "after": "[MASK] | b"}]
