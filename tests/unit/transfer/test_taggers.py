import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd_taggers import nltk_perceptron, pattern
from kdcli.errors import MissingError

WORDS = st.one_of(
    st.sampled_from(["The", "the", "Film", "film", "running", "badly", "1999", "2.5", "n't", "'s", ",", "and/or", "-"]),
    st.sampled_from(["Paris", "zyxed", "half-hearted", "$", "...", "[MASK]", "1980s", "École", "A", "was", "been"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=8),
)
TEXTS = st.lists(st.lists(WORDS, max_size=7), max_size=5)


def textblob_tags(words: list[str]) -> list[str]:
    from textblob.en.taggers import PatternTagger

    return [tag for _, tag in PatternTagger().tag(" ".join(words), tokenize=False)] if words else []


def nltk_tags(words: list[str]) -> list[str]:
    import nltk

    return [tag for _, tag in nltk.pos_tag(words)]


@settings(deadline=None)
@given(TEXTS)
def test_pattern_tags_as_textblob_does(texts):
    assert pattern.tag(texts) == [textblob_tags(words) for words in texts]


@pytest.mark.usefixtures("shared_nltk")
def test_nltk_tags_as_nltk_does(sst2):
    @settings(deadline=None)
    @given(TEXTS)
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


def test_nltk_without_its_data_says_what_to_do(monkeypatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    nltk_perceptron._model.cache_clear()
    with pytest.raises(MissingError, match="averaged_perceptron_tagger_eng") as error:
        nltk_perceptron.tag([["a"]])
    assert error.value.exit_code == 6
    assert "NLTK_DATA" in (error.value.hint or "")
    nltk_perceptron._model.cache_clear()


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import kd_taggers.pattern, kd_taggers.nltk_perceptron", {"nltk", "textblob", "numpy", "pyarrow", "pydantic"}),
        ("import kd_taggers.pattern as p; p.tag([['a', 'film']])", {"nltk", "scipy", "sklearn"}),
    ],
)
def test_heavy_modules_are_imported_when_they_are_needed_alone(code, absent):
    code += "; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    assert not absent & set(loaded)


def test_pattern_without_textblob_says_what_to_do(monkeypatch):
    monkeypatch.setattr(pattern, "find_spec", lambda name: None)
    pattern._find_tags.cache_clear()
    with pytest.raises(MissingError, match="needs textblob") as error:
        pattern.tag([["a word that nobody has tagged before"]])
    assert "pip install textblob" in (error.value.hint or "")
