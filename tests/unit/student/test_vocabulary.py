import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.trainers import WordLevelTrainer

from kdcli.errors import DataError
from kdcli.student.vocabulary import SPREAD, TextEncoder, epoch_batches, train_vocabulary, unknown_words, vocabulary

TEXTS = ["It 's a GOOD film , isn't it ?", "a [MASK] film", "", "naïve café  中文", "a good good film"]

characters = st.characters(codec="utf-8") | st.sampled_from(" a\tbΣ\n\u0301\x85'")
texts_of = st.lists(st.lists(st.text(characters) | st.just("[MASK]"), max_size=6).map("".join), min_size=1, max_size=8)


def trained(texts=TEXTS, max_size=100, min_freq=1, lowercase=True):
    return train_vocabulary([pl.Series(texts)], max_size=max_size, min_freq=min_freq, lowercase=lowercase)


def encode_texts(texts, tokenizer, max_length):
    return TextEncoder(tokenizer, max_length).encode(texts)


def rows(texts):
    return [texts.words[begin:end].tolist() for begin, end in zip(texts.offsets, texts.offsets[1:], strict=False)]


def test_words_by_frequency_behind_the_special_ones_and_others_where_there_is_room():
    words = vocabulary(trained())
    assert words[:2] == ["[PAD]", "[MASK]"]
    assert words[2:7] == ["a", "film", "good", "'", "it"]
    assert {"cafe", "naive", "中", "文", "?", "isn", "t"} <= set(words)
    assert not {"mask", "[", "]", "GOOD"} & set(words)
    assert vocabulary(trained(max_size=4)) == ["[PAD]", "[MASK]", "a", "film"]
    assert vocabulary(trained(min_freq=3)) == ["[PAD]", "[MASK]", "a", "film", "good"]
    assert {"GOOD", "café", "It"} <= set(vocabulary(trained(lowercase=False)))
    own = vocabulary(trained())
    more = ["film", "Actress", "x", "two words", "semi-colon", "[unused1]", "plot", "actress", "映", "scene", "late"]
    room = len(own) + 3

    def words(max_size):
        texts = [pl.Series(TEXTS)]
        return vocabulary(train_vocabulary(texts, max_size=max_size, min_freq=1, lowercase=True, more=iter(more)))

    assert words(room) == [*own, "actress", "plot", "映"]
    assert words(100) == [*own, "actress", "plot", "映", "scene", "late"]
    assert words(len(own)) == own
    assert words(5) == own[:5]


PIECES = ["f", "##i", "##s", "g", "##oo", "##ING", "##d"]


def test_a_word_outside_the_vocabulary_is_read_in_pieces_unless_it_is_too_long():
    tokenizer = train_vocabulary([pl.Series(TEXTS)], max_size=100, min_freq=2, lowercase=True, pieces=iter(PIECES))
    assert vocabulary(tokenizer) == ["[PAD]", "[MASK]", "a", "film", "good", "'", "it", *PIECES[:5], "##d"]
    for text, tokens in {
        "goods films": ["good", "##s", "film", "##s"],
        "fis [MASK] FISS": ["f", "##i", "##s", "[MASK]", "f", "##i", "##s", "##s"],
        "fit good": ["[MASK]", "good"],  # nothing fits t
    }.items():
        assert tokenizer.encode(text).tokens == tokens
    encoder = TextEncoder(tokenizer, 9)
    words, unknown = unknown_words(encoder.encode(pl.Series(["goods films", "a good film", "fit"])), encoder.foreign)
    assert (words.tolist(), unknown.tolist()) == ([4, 3, 1], [2, 0, 1])
    how = {"max_size": 8, "min_freq": 1, "lowercase": True, "pieces": iter(PIECES), "more": iter(["scene"])}
    assert vocabulary(train_vocabulary([pl.Series(TEXTS)], **how)) == ["[PAD]", "[MASK]", "a", "film", *PIECES[:4]]
    how |= {"max_size": 100, "pieces": iter(PIECES), "more": iter(["scene", "##x"])}
    assert vocabulary(train_vocabulary([pl.Series(["a b"])], **how))[2:] == ["a", "b", *PIECES[:5], "##d", "scene"]
    long, how = "ab" * 51, {"max_size": 100, "min_freq": 1, "lowercase": True}
    tokenizer = train_vocabulary([pl.Series([f"{long} a"])], pieces=iter(PIECES), **how)
    assert long in vocabulary(tokenizer) and tokenizer.encode(f"{long} a").tokens == ["[MASK]", "a"]
    assert rows(encode_texts(pl.Series([f"{long} a"]), tokenizer, 9)) == [tokenizer.encode(f"{long} a").ids]
    whole = train_vocabulary([pl.Series([f"{long} a"])], **how)
    assert rows(encode_texts(pl.Series([long]), whole, 9)) == [[whole.token_to_id(long)]]


def test_odd_texts_and_masks_and_what_is_remembered_changes_nothing(monkeypatch):
    tokenizer = trained([*TEXTS, "x [ pad ] unk y"])
    assert tokenizer.encode("x[MASK]y [PAD] [unk]").tokens == ["x", "[MASK]", "y", "[", "pad", "]", "[", "unk", "]"]
    with pytest.raises(DataError, match="no word"):
        trained(["", " ", "[MASK]"])
    tokenizer = trained()
    long = "film " * 100_000
    found = encode_texts(pl.Series([None, long, "x" * 100_000, ""]), tokenizer, 128)
    assert rows(found) == [[1], [tokenizer.token_to_id("film")] * 128, [1], [1]]
    assert encode_texts(pl.Series([], dtype=pl.String), tokenizer, 128).lengths.tolist() == []
    assert encode_texts(pl.Series(["a"]), trained(), 9).words.dtype == np.uint16
    many = trained([" ".join(f"w{number}" for number in range(66_000))], max_size=66_000)
    assert encode_texts(pl.Series(["w9"]), many, 9).words.dtype == np.uint32
    tokenizer = trained()
    encoder = TextEncoder(tokenizer, 9)
    expected = rows(encode_texts(pl.Series(TEXTS), tokenizer, 9))
    for _ in range(2):
        assert rows(encoder.encode(pl.Series(TEXTS))) == expected
        monkeypatch.setattr("kdcli.student.vocabulary._REMEMBERED", 3)
    more = pl.Series(["film good new", "good"])
    assert rows(encoder.encode(more)) == rows(encode_texts(more, tokenizer, 9))


@settings(max_examples=100, deadline=None)
@given(texts_of, st.booleans(), st.booleans())
def test_ids_are_the_tokenizers(texts, lowercase, cut):
    columns, pieces = [pl.Series([*TEXTS, *texts[::2]])], PIECES if cut else ()
    tokenizer = train_vocabulary(columns, max_size=20, min_freq=1, lowercase=lowercase, pieces=pieces)
    ids = [tokenizer.encode(text).ids for text in texts]
    for length in (1000, 2):
        expected = [row[:length] or [1] for row in ids]
        assert rows(encode_texts(pl.Series(texts), tokenizer, length)) == expected
        assert rows(TextEncoder(tokenizer, length).encode_few(texts)) == expected


@settings(max_examples=50, deadline=None)
@given(texts_of)
def test_vocabulary_is_the_librarys(texts):
    texts = [text.replace("[MASK]", " ") for text in [*TEXTS, *texts]]
    ours = trained(texts, max_size=30)
    theirs = Tokenizer(WordLevel({}, unk_token="[MASK]"))
    theirs.normalizer, theirs.pre_tokenizer = ours.normalizer, ours.pre_tokenizer
    special = ["[PAD]", "[MASK]"]
    trainer = WordLevelTrainer(vocab_size=30, min_frequency=1, special_tokens=special, show_progress=False)
    theirs.train_from_iterator(texts, trainer)
    assert ours.get_vocab() == theirs.get_vocab()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 128), min_size=1, max_size=200), st.integers(1, 60), st.integers(0, 2**40))
def test_an_epoch_is_a_partition(lengths, size, seed):
    batches = epoch_batches(np.array(lengths), size, seed, 3)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, batches), reverse=True)[:-1] == [size] * (len(batches) - 1)


def test_batches_of_close_lengths_in_an_order_of_the_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 60, 10_000)
    for batch in epoch_batches(lengths, 50, 1, 0):
        assert lengths[batch].max() <= lengths[batch].min() * (1 + SPREAD) + 2
    lengths = np.random.default_rng(0).integers(1, 60, 1000)

    def order(seed, epoch):
        return np.concatenate(epoch_batches(lengths, 50, seed, epoch)).tolist()

    assert order(1, 5) == order(1, 5) != order(1, 6) != order(2, 6)
    lengths = np.random.default_rng(0).integers(1, 60, 5000)
    means = [lengths[batch].mean() for batch in epoch_batches(lengths, 50, 1, 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3
    lengths = np.arange(10, 40)
    meetings = {tuple(sorted(batch)) for epoch in range(10) for batch in epoch_batches(lengths, 10, 1, epoch)}
    assert len(meetings) > 20
