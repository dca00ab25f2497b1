import sys
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer

from kdcli.errors import PluginError
from kdcli.transfer import rules
from kdcli.transfer.rules import TaggedWords, TagPart, split

PIECES = [
    *["word", "half-hearted", "x/y", r"and\/or", "-lrb-", "café", "a", "1999", "3.5", "1,000", "snake_case"],
    *["mr.", "e.t.", "U.S.", "etc.", "...", "..", ".", ",", ";", ":", "?", "!", "(", ")", "[", "]", "{", "<"],
    *["'s", "n't", "'ll", "'em", "'70s", "'", "''", "``", "`", '"', "“", "”", "\u2019", "«", "'tis", "don't", "it's"],
    *["can", "not", "cannot", "Cannot-do", "gonna", "wanna", "gimme", "d'ye", "more'n", "un-gonna"],
    *["-", "--", "---", "—", "$", "%", "#", "&", "@", "*", "***", "+", "=", "/", "[MASK]", "\x00", "😀", "\u200b"],
]
GAPS = st.sampled_from([" ", " ", " ", " ", "", "  ", "\t", "\n", "\u00a0", "\u2028", "\x85", "\x1c"])
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), GAPS), max_size=8).map(
    lambda pairs: "".join(piece + gap for piece, gap in pairs)
)


def nltk_words(text: str) -> list[str] | None:
    try:
        return [text[start:end] for start, end in NLTKWordTokenizer().span_tokenize(text)]
    except ValueError:
        return None


@settings(deadline=None)
@given(st.one_of(TEXTS, st.text(st.characters(max_codepoint=0x2FFF))))
def test_white_space_cuts_as_python_does_and_nothing_is_lost(text):
    words, gaps = split(text, "whitespace")
    assert list(words) == text.split()
    rejoined = "".join(word + gap for word, gap in zip(words, gaps, strict=True))
    assert rejoined.strip() == text.strip()


@settings(deadline=None)
@given(st.one_of(TEXTS, st.text(st.characters(max_codepoint=0x2FFF))))
@example("mr. x is n't \u2014 here etc.")
@example("he said `` hi '' \" and \" went")
def test_treebank_cuts_as_nltk_does_and_nothing_is_lost(text):
    words, gaps = split(text, "treebank")
    expected = nltk_words(text)
    assert list(words) == (expected or text.split())
    rejoined = "".join(word + gap for word, gap in zip(words, gaps, strict=True))
    assert rejoined.strip() == text.strip()


@pytest.mark.parametrize("words", ["treebank", "whitespace"])
def test_characters_without_spaces_between_are_words(words):
    text = "这部电影很好 is 很good, かな"
    found, gaps = split(text, words)
    tail = ["很", "good", ","] if words == "treebank" else ["很", "good,"]
    assert found == [*"这部电影很好", "is", *tail, "か", "な"]
    assert "".join(word + gap for word, gap in zip(found, gaps, strict=True)).strip() == text


def test_words_hold_what_follows_them():
    assert split(" It's  over ,no. ", "treebank") == (
        ["It", "'s", "over", ",", "no", "."],
        ["", "  ", " ", "", "", ""],
    )
    assert split("a\tb  c", "whitespace") == (["a", "b", "c"], ["\t", "  ", ""])


@pytest.mark.parametrize("unit", ["word ", "it's, ", "'' \"x\" "])
def test_text_of_a_hundred_thousand_words(unit):
    text = unit * (100_000 // len(split(unit, "treebank")[0]))
    assert 99_990 < len(split(text, "treebank")[0]) <= 100_000


@pytest.fixture
def tagged(tmp_path, monkeypatch):
    """Tag part ``part`` of some texts by a function, two to a part."""

    def run(texts, tag, words="treebank", part=0):
        monkeypatch.setattr(rules.registry, "load", lambda group, name: SimpleNamespace(tag=tag))
        frame = pl.DataFrame(texts)[2 * part : 2 * part + 2]
        TagPart("any", words, 0, 2)(part, tmp_path / "part.parquet", frame)
        return pl.read_parquet(tmp_path / "part.parquet")

    return run


def initials(texts):
    return [[word[0].upper() for word in words] for words in texts]


def test_part_holds_words_gaps_and_tags(tagged):
    found = tagged({"a": ["not", "this", "a bad  film", ""], "b": ["", "", "", "a film."]}, initials, part=1)
    assert found.columns == ["column", "row", "word", "gap", "tag"]
    assert found.rows() == [
        (0, 2, "a", " ", "A"),
        (0, 2, "bad", "  ", "B"),
        (0, 2, "film", "", "F"),
        (1, 3, "a", " ", "A"),
        (1, 3, "film", "", "F"),
        (1, 3, ".", "", "."),
    ]
    words = TaggedWords.of(found.filter(pl.col("column") == 0), 1, 3)
    assert words.offsets.tolist() == [0, 0, 3, 3]
    assert words.vocabulary.gather(words.words).to_list() == ["a", "bad", "film"]
    assert [words.spaces[gap] for gap in words.gaps] == [" ", "  ", ""]
    assert [words.tag_names[tag] for tag in words.tags] == ["A", "B", "F"]


def test_part_of_empty_texts(tagged):
    words = TaggedWords.of(tagged({"sentence": ["", " "]}, initials, "whitespace"), 0, 2)
    assert words.offsets.tolist() == [0, 0, 0]
    assert (len(words.words), words.tag_names) == (0, [])


@pytest.mark.parametrize("tags", [[["A"]], [["A", "B", "C"]], [["A", "B"], []], [], [[1, 2]], None])
def test_tagger_that_miscounts_is_an_error(tagged, tags):
    with pytest.raises(PluginError, match="one tag a word"):
        tagged({"sentence": ["two words"]}, lambda texts: tags, "whitespace")


def test_plain_texts_need_no_nltk(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk.tokenize", None)
    rules._tokenizer.cache_clear()
    assert split("a plain text , is n't it ? ", "treebank")[0] == ["a", "plain", "text", ",", "is", "n't", "it", "?"]


@pytest.mark.parametrize(("max_words", "cut"), [(0, 0), (2, 2), (3, 1), (4, 0)])
def test_long_texts_are_cut_and_counted(tmp_path, monkeypatch, max_words, cut):
    texts = pl.DataFrame({"sentence": ["one two three", "a b c d", "x"]})
    part = tmp_path / "part.parquet"
    TagPart("pattern", "whitespace", max_words, 3)(0, part, texts)
    words = [text.split()[: max_words or None] for text in texts["sentence"]]
    found = pl.read_parquet(part).group_by("row", maintain_order=True).agg("word")["word"].to_list()
    assert found == words
    assert int(pl.read_parquet_metadata(part)["cut"]) == cut
