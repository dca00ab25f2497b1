import unicodedata

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from kdcli.transfer.cleaning import clean, one_line, spaced, split_pairs

ODD = st.sampled_from(list(" \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u3000\ufeff\x00\x1b\x7f\x80\x9fab"))
TEXTS = st.one_of(st.text(max_size=20), st.text(ODD, max_size=12))
EVERY = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def changed(change, texts: list[str]) -> list[str]:
    return pl.DataFrame({"text": pl.Series(texts, dtype=pl.String)}).select(change(pl.col("text")))["text"].to_list()


def by_category(text: str) -> str:
    """Do the same by Unicode's categories, a character at a time."""
    made = ""
    for character in text:
        if character.isspace():
            made += "" if made.endswith(" ") else " "
        elif unicodedata.category(character) != "Cc" and character != "\ufeff":
            made += character
    return made.strip(" ")


@given(st.lists(TEXTS, max_size=8))
def test_clean_is_what_the_categories_of_characters_say(texts):
    found = changed(clean, texts)
    assert found == [by_category(text) for text in texts]
    assert changed(clean, found) == changed(spaced, found) == found


@given(st.lists(TEXTS, max_size=8))
def test_white_space_is_that_of_python(texts):
    assert changed(spaced, texts) == [" ".join(text.split()) for text in texts]
    lines = changed(one_line, texts)
    for text, line in zip(texts, lines, strict=True):
        assert line.splitlines() in ([line], []) and "\t" not in line and line.split() == text.split()


def test_every_character():
    texts = [f"a{character}b{character}" for character in EVERY]
    assert changed(spaced, texts) == [" ".join(text.split()) for text in texts]
    assert changed(clean, texts) == [by_category(text) for text in texts]


def test_a_pair_has_one_tab_and_text_on_both_sides():
    pairs = {
        "a\tb": ("a", "b"),
        " a\x85 b \t\xa0c ": ("a b", "c"),
        "a\nb\tc\r\n": ("a b", "c"),
        **dict.fromkeys(["a b", "a\tb\tc", "a\tb\t", "a\t \x00", "\tb", ""]),
    }
    found = split_pairs(pl.Series(list(pairs)), ("sentence1", "sentence2"))
    assert found.columns == ["sentence1", "sentence2"]
    assert found.rows() == [pair for pair in pairs.values() if pair]
    assert split_pairs(pl.Series([], dtype=pl.String), ("a", "b")).rows() == []


def test_one_line_changes_tabs_line_ends_and_the_ends_alone():
    assert changed(one_line, [" a  b\xa0c\x00\ufeff \t\r\n d\u2028\x85e "]) == ["a  b\xa0c\x00\ufeff   d e"]
