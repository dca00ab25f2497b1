from itertools import pairwise

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kdcli.lm.masked import MaskedTexts
from kdcli.lm.texts import IGNORED, SPECIAL, train_wordpiece

TEXTS = [
    "a Good film about a  bad dog",
    "the plot is VERY dull , and the actors aren't great",
    "naïve but great fun",
    "½ of it was ﬁne",
    "very bad",
    "fun fun fun ! 🙂",
]
PAIRS = [f"{first}\t{second}" for first, second in zip(TEXTS, reversed(TEXTS), strict=True)]
NAMES = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}


def wordpiece():
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=train_wordpiece([TEXTS], 70), model_input_names=inputs, **SPECIAL)


def byte_level():
    """RoBERTa's kind."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = {"special_tokens": list(NAMES.values()), "show_progress": False}
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, **special))
    made.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=["input_ids", "attention_mask"], **NAMES)


def unigram():
    """XLM-RoBERTa's kind."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = {"special_tokens": list(NAMES.values()), "unk_token": "<unk>", "show_progress": False}
    made.train_from_iterator(TEXTS, trainers.UnigramTrainer(vocab_size=80, **special))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=["input_ids", "attention_mask"], **NAMES)


@pytest.fixture(params=[wordpiece, byte_level, unigram], ids=["wordpiece", "byte-level", "unigram"])
def any_tokenizer(request):
    return request.param()


@pytest.fixture
def tokenizer():
    return wordpiece()


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["single", "pair"])
def test_masks_are_whole_words_and_nothing_else(any_tokenizer, texts):
    made = MaskedTexts(texts, any_tokenizer, 200, seed=1)
    batch = made.rows.batch(range(len(texts)))
    for row, text in enumerate(texts):
        expected = any_tokenizer(*text.split("\t"), return_offsets_mapping=True)
        length = len(expected["input_ids"])
        labels, inputs = batch["labels"][row, :length].numpy(), batch["input_ids"][row, :length].numpy()
        masked = labels != IGNORED
        assert np.where(masked, labels, inputs).tolist() == expected["input_ids"]
        assert (inputs[masked] == any_tokenizer.mask_token_id).all() and masked.any()
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (batch["labels"].shape[1] - length)
        assert (batch["labels"][row, length:] == IGNORED).all()
        words = [*zip(expected.sequence_ids(), expected.word_ids(), strict=True)]
        offsets = expected["offset_mapping"]
        for place, (side, word) in enumerate(words):
            assert not (masked[place] and side is None), "a special token is masked"
            same = [other for other, found in enumerate(words) if found == (side, word) and side is not None]
            same = [other for other in same if offsets[other][0] < offsets[other][1]]
            assert masked[same].all() or not masked[same].any()


def test_pairs_are_encoded_as_bert_does_and_masks_depend_on_seed_and_epoch_alone(tokenizer):
    made = MaskedTexts(PAIRS, tokenizer, 200)
    types = made.rows.batch([1])["token_type_ids"][0].tolist()
    first, second = PAIRS[1].split("\t")
    assert types == tokenizer(first, second)["token_type_ids"] and sum(types) == len(tokenizer(second)["input_ids"]) - 1

    def masked(seed, *epochs):
        made = MaskedTexts(TEXTS * 5, tokenizer, 100, seed)
        for epoch in epochs:
            made.start(epoch)
        return made.rows.batch(range(30))["input_ids"].tolist()

    assert masked(1, 0, 1, 2) == masked(1, 2) != masked(1, 1)
    assert masked(1, 2) != masked(2, 2) and masked(1) == masked(1, 0)
    assert masked(None) == masked(None, 1, 2)


def test_the_share_of_masked_words_is_kept_on_average(tokenizer):
    words = np.array([5, 7, 12, 3, 1])
    texts = [" ".join(["fun"] * int(number)) for number in words]
    made = MaskedTexts(texts, tokenizer, 100, seed=3, share=0.3)
    assert made.words.tolist() == words.tolist()
    counts = []
    for epoch in range(400):
        made.start(epoch)
        counts.append([int((row != IGNORED).sum()) for row in made.rows.batch(range(len(words)))["labels"]])
    spread = {tuple(sorted(set(column))) for column in zip(*counts, strict=True)}
    assert spread == {(1, 2), (2, 3), (3, 4), (1,)}
    assert np.mean(counts, axis=0) == pytest.approx([1.5, 2.1, 3.6, 1, 1], abs=0.08)
    made = MaskedTexts(texts, tokenizer, 100, share=1.0)
    assert made.masked.sum() == words.sum() == (made.tokens >= len(SPECIAL)).sum()


def cut_and_paste(text, masked, tokens, tokenizer):
    """Replace the characters of each masked word by what its tokens say, by the offsets of the tokenizer."""
    encoded = tokenizer(*text.split("\t"), return_offsets_mapping=True)
    sides = text.split("\t")
    words = {}
    for place, key in enumerate(zip(encoded.sequence_ids(), encoded.word_ids(), strict=True)):
        if masked[place]:
            words.setdefault(key, []).append(place)
    for (side, _), places in reversed(words.items()):
        start, end = encoded["offset_mapping"][places[0]][0], encoded["offset_mapping"][places[-1]][1]
        start += sides[side][start] == " "
        sides[side] = sides[side][:start] + tokenizer.decode(tokens[places]).strip() + sides[side][end:]
    return "\t".join(sides)


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
def test_only_masked_words_change_in_the_text(any_tokenizer, pair):
    texts = [text for text in (PAIRS if pair else TEXTS) if "½" not in text]
    made = MaskedTexts(texts, any_tokenizer, 200, seed=2, share=0.4)
    tokens = made.tokens.copy()
    tokens[made.masked] = np.random.default_rng(0).permutation(tokens[made.masked])
    found = made.filled(tokens)
    for row, (start, end) in enumerate(pairwise(made.rows.offsets)):
        assert found[row] == cut_and_paste(texts[row], made.masked[start:end], tokens[start:end], any_tokenizer)
        assert found[row] != texts[row] and found[row].count("\t") == pair


def test_long_and_odd_texts(tokenizer):
    made = MaskedTexts(["bad " * 20, "bad fun", "\u200b"], tokenizer, 8)
    assert made.whole.tolist() == [False, True, True] and made.rows.lengths.max() == 8
    assert made.words.tolist()[1:] == [2, 0] and not made.masked[-2:].any()
    pairs = MaskedTexts(["bad " * 20 + "\t fun"], tokenizer, 8)
    assert pairs.rows.lengths.tolist() == [8] and not pairs.whole[0]
    assert len(MaskedTexts([], tokenizer, 8).rows) == 0
    made = MaskedTexts(["[MASK] film [SEP] film of [CLS] fun"], tokenizer, 100)
    assert (made.tokens[1:-1] != tokenizer.mask_token_id).all()
    assert set(made.tokens[1:-1].tolist()).isdisjoint({tokenizer.sep_token_id, tokenizer.cls_token_id})
    made = MaskedTexts(["½ ﬁne"], unigram(), 100, share=1.0)
    assert made.words.tolist() == [2] and made.masked.sum() == len(made.tokens) - 2
