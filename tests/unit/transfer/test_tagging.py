import sys
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import example, given, settings, strategies as st
from nltk.tokenize import NLTKWordTokenizer
from raising import raising

from kd_taggers import nltk_perceptron, pattern
from kdcli.errors import MissingError, PluginError
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


def nltk_words(text):
    try:
        return [text[start:end] for start, end in NLTKWordTokenizer().span_tokenize(text)]
    except ValueError:
        return None


@settings(deadline=None)
@given(st.one_of(TEXTS, st.text(st.characters(max_codepoint=0x2FFF))))
@example("mr. x is n't \u2014 here etc.")
@example("he said `` hi '' \" and \" went")
def test_texts_are_cut_as_python_and_nltk_do_and_nothing_is_lost(text):
    for how, expected in (("whitespace", text.split()), ("treebank", nltk_words(text) or text.split())):
        words, gaps = split(text, how)
        assert list(words) == expected
        rejoined = "".join(word + gap for word, gap in zip(words, gaps, strict=True))
        assert rejoined.strip() == text.strip()


@pytest.mark.parametrize("words", ["treebank", "whitespace"])
def test_characters_without_spaces_between_are_words(words):
    text = "这部电影很好 is 很good, かな"
    found, gaps = split(text, words)
    tail = ["很", "good", ","] if words == "treebank" else ["很", "good,"]
    assert found == [*"这部电影很好", "is", *tail, "か", "な"]
    assert "".join(word + gap for word, gap in zip(found, gaps, strict=True)).strip() == text


@pytest.fixture
def tagged(tmp_path, monkeypatch):
    """Tag part ``part`` of some texts by a function, two to a part."""

    def run(texts, tag, words="treebank", part=0):
        monkeypatch.setattr(rules.registry, "load", lambda group, name: SimpleNamespace(tag=tag))
        frame = pl.DataFrame(texts)[2 * part : 2 * part + 2]
        TagPart("pattern", words, 0, 2)(part, tmp_path / "part.parquet", frame)
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
    words = TaggedWords.of(tagged({"sentence": ["", " "]}, initials, "whitespace"), 0, 2)
    assert (words.offsets.tolist(), len(words.words), words.tag_names) == ([0, 0, 0], 0, [])


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


WORDS = st.one_of(
    st.sampled_from(["The", "the", "Film", "film", "running", "badly", "1999", "2.5", "n't", "'s", ",", "and/or", "-"]),
    st.sampled_from(["Paris", "zyxed", "half-hearted", "$", "...", "[MASK]", "1980s", "École", "A", "was", "been"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=8),
)
WORD_LISTS = st.lists(st.lists(WORDS, max_size=7), max_size=5)


def textblob_tags(words):
    from textblob.en.taggers import PatternTagger

    return [tag for _, tag in PatternTagger().tag(" ".join(words), tokenize=False)] if words else []


def nltk_tags(words):
    import nltk

    return [tag for _, tag in nltk.pos_tag(words)]


@settings(deadline=None)
@given(WORD_LISTS)
def test_pattern_tags_as_textblob_does(texts):
    assert pattern.tag(texts) == [textblob_tags(words) for words in texts]


@pytest.mark.usefixtures("shared_nltk")
def test_nltk_tags_as_nltk_does(sst2):
    @settings(deadline=None)
    @given(WORD_LISTS)
    def on_any_words(texts):
        assert nltk_perceptron.tag(texts) == [nltk_tags(words) for words in texts]

    on_any_words()
    texts = [text.split() for text in sst2(1500)]
    assert nltk_perceptron.tag(texts) == [nltk_tags(words) for words in texts]


@st.composite
def models(draw):
    """Make a small perceptron of NLTK's, in which ties are common."""
    from nltk.tag.perceptron import PerceptronTagger

    words = ["a", "-START2-", "-END-", "!YEAR", "tal", "b"]
    features = ["bias", "i-1 tag A", "i-1 tag -START-", "i-2 tag -START2-", "i-2 tag B", "i tag+i-2 tag A B"]
    features += ["i-1 tag+i word C a", "i pref1 t", "i suffix tal"]
    features += [f"{name} {word}" for name in ("i word", "i-1 word", "i-1 suffix", "i-2 word") for word in words]
    features += [f"{name} {word}" for name in ("i+1 word", "i+1 suffix", "i+2 word") for word in words]
    weights = st.dictionaries(st.sampled_from("ABC"), st.sampled_from([0.1, 0.2, 0.3, -0.3, 1.0]), max_size=3)
    tagger = PerceptronTagger(load=False)
    tagger.classes = tagger.model.classes = set("ABC")
    tagger.model.weights = {"bias": {}} | {name: draw(weights) for name in draw(st.sets(st.sampled_from(features)))}
    tagger.tagdict = draw(st.dictionaries(st.sampled_from(["b", "Total"]), st.sampled_from("ABC")))
    return tagger


@settings(deadline=None)
@given(models(), st.lists(st.lists(st.sampled_from(["a", "b", "Total", "1999", "x-y", "A"]), max_size=6), max_size=4))
def test_any_perceptron_tags_as_nltk_does(tagger, texts):
    expected = [[tag for _, tag in tagger.tag(words)] for words in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nltk.tag.perceptron.PerceptronTagger", lambda: tagger)
        nltk_perceptron._model.cache_clear()
        assert nltk_perceptron.tag(texts) == expected
    nltk_perceptron._model.cache_clear()


def test_a_tagger_without_its_data_or_library_says_what_to_do(monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    nltk_perceptron._model.cache_clear()
    with raising(MissingError, "averaged_perceptron_tagger_eng", hint="NLTK_DATA"):
        nltk_perceptron.tag([["a"]])
    nltk_perceptron._model.cache_clear()
