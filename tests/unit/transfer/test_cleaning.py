"""What cleaning changes, and what it leaves alone."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli.transfer.cleaning import clean, clean_column, one_line, split_pair
from kdcli.transfer.keys import keys, normal_keys

ODD = st.sampled_from(list(" \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u1680\u2003\u2028\u2029\u3000\ufeff\x00\x1b\x7f\x80\x9fab"))
TEXTS = st.one_of(st.text(max_size=20), st.text(ODD, max_size=12))


def by_category(text: str) -> str:
    """Do the same by Unicode's categories, a character at a time."""
    made = ""
    for character in text:
        if character.isspace():
            made += "" if made.endswith(" ") else " "
        elif unicodedata.category(character) != "Cc" and character != "\ufeff":
            made += character
    return made.strip(" ")


@given(TEXTS)
def test_clean_is_what_the_categories_of_characters_say(text):
    assert clean(text) == by_category(text)
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a\tb\r\nc\x85d\u2028e\xa0f", "a b c d e f"),
        ("  a   b ", "a b"),
        ("a\x00b \x1b c", "ab c"),
        ("\ufeffa", "a"),
        ("\u3000\t\x00", ""),
        ("na\u0131\u0308ve \u200d \u00ad \U0001f600 NA \"''", "na\u0131\u0308ve \u200d \u00ad \U0001f600 NA \"''"),
    ],
)
def test_examples(text, plain):
    assert clean(text) == plain


@given(st.lists(TEXTS, max_size=8), st.integers(0, 3))
def test_a_column_is_cleaned_as_its_texts_are(texts, first):
    column = pa.array(texts, pa.string())
    assert clean_column(column).to_pylist() == [clean(text) for text in texts]
    assert clean_column(column.slice(first)).to_pylist() == [clean(text) for text in texts[first:]]
    assert clean_column(pa.chunked_array([column, column])).to_pylist() == [clean(text) for text in texts * 2]


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_clean_texts_have_the_keys_of_their_normal_form(texts):
    column = clean_column(pa.array(texts, pa.string()))
    assert (keys([column]) == normal_keys([column])).all()


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a\tb", ("a", "b")),
        (" a\x85 b \t\xa0c ", ("a b", "c")),
        ("a\nb\tc\r\n", ("a b", "c")),
        ("a b", None),
        ("a\tb\tc", None),
        ("a\tb\t", None),
        ("a\t \x00", None),
        ("\tb", None),
        ("", None),
    ],
)
def test_a_pair_has_one_tab_and_text_on_both_sides(text, pair):
    assert split_pair(text) == pair


@given(TEXTS)
def test_one_line_is_one_and_keeps_the_words(text):
    line = one_line(text)
    assert line.splitlines() in ([line], [])
    assert "\t" not in line
    assert line.split() == text.split()


def test_one_line_changes_tabs_line_ends_and_the_ends_alone():
    assert one_line(" a  b\xa0c\x00\ufeff \t\r\n d\u2028\x85e ") == "a  b\xa0c\x00\ufeff   d e"
