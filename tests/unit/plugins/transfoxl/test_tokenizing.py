import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, strategies as st
from tiny_transfoxl import tokenizer_of

from kd_transfoxl.model import TransfoXLLMHeadModel
from kd_transfoxl.words import WordTokenizer, detect_words, join, split
from kdcli.api import DataError
from kdcli.models.hf import quiet

REFERENCE = Path(__file__).parent / "reference"

TEXTS = json.loads((REFERENCE / "texts.json").read_text("utf-8"))
ROWS = TEXTS["rows"]
SIGNS = ("@-@", "@,@", "@.@")

TOKENISED = [
    "it 's a charming and often affecting journey .",
    "does n't it ?",
    "-lrb- an -rrb- all-too-familiar film , worth $ 1,000.50 .",
    "well-made and well-acted",
]
RAW = [
    "Our friends won't buy this analysis, let alone the next one we propose.",
    "How imminent is World War three?",
    'He called her "the witness" twice.',
]


def test_words_texts_and_ids_are_those_of_the_published_tokenizer():
    assert len(ROWS) > 150
    for row in ROWS:
        assert split(row["text"], "moses") == row["words"], row["text"]
        assert join(row["words"], "moses") == row["joined"], row["text"]
    tokenizer = WordTokenizer.from_pretrained(REFERENCE / "wt103")
    found = tokenizer([row["text"] for row in ROWS])["input_ids"]
    for row, ids in zip(ROWS, found, strict=True):
        # A text that says <eos> does not end there, as it did in transformers.
        expected = [1 if word == "<eos>" else number for word, number in zip(row["words"], row["ids"], strict=True)]
        assert ids == expected, row["text"]
    assert any(1 in ids for ids in found)
    assert any("<eos>" in row["words"] for row in ROWS)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("words", ["vocab.pkl", "vocab.bin", "vocab.txt"])
def test_a_published_folder_predicts_a_text_as_it_did(tmp_path, weights, words):
    for name in ("config.json", weights, words):
        shutil.copy(REFERENCE / "wt103" / name, tmp_path)
    tokenizer = WordTokenizer.from_pretrained(tmp_path)
    with quiet():
        model = TransfoXLLMHeadModel.from_pretrained(tmp_path).eval()
    [tokens] = tokenizer([ROWS[0]["text"]])["input_ids"]
    text = torch.tensor([[*tokens, tokenizer.eos_token_id]])
    assert model(text).losses[0].tolist() == pytest.approx(TEXTS["losses"], abs=1e-4)


@given(st.text())
@example("a-b-c 1,2.3,4 -lrb- x- -y -- 1, ,2 a_b-c é-ü 3-4")
@example("@-@@ x@-@y @ - @ <eos> <unk>")
def test_tokenised_texts_come_back_as_they_were(text):
    pieces = [piece for piece in text.split() if piece not in SIGNS]
    words = split(" ".join(pieces), "whitespace")
    assert join(words, "whitespace") == " ".join(pieces)
    assert all(word.split() == [word] for word in words)


@given(st.lists(st.sampled_from([*SIGNS, "a", "-", "1", ".", '"', "'s"])), st.sampled_from(["moses", "whitespace"]))
def test_no_text_holds_a_sign(words, how):
    assert not any(sign in join(words, how) for sign in SIGNS)


def test_how_texts_are_cut_is_seen_from_them():
    assert detect_words(TOKENISED) == "whitespace"
    assert detect_words(RAW) == detect_words([]) == "moses"


@pytest.fixture
def tokenizer():
    return WordTokenizer(["<eos>", "<unk>", "a", "b", "A", "@-@", "."], "whitespace")


def test_ids_of_unknown_words_of_pairs_and_the_case_of_the_vocabulary(tokenizer):
    assert tokenizer(["a b", "a z A", "", "b-a."])["input_ids"] == [[2, 3], [2, 1, 4], [], [3, 5, 1]]
    assert tokenizer(["a <eos> b", "<unk>"])["input_ids"] == [[2, 1, 3], [1]]
    assert tokenizer(["a b\tb", "a\t"])["input_ids"] == [[2, 3, 0, 3], [2, 0]]
    decoded = tokenizer.batch_decode([[2, 3, 0, 3], [2, 0], [0, 2], [2, 0, 0, 2], []])
    assert decoded == ["a b\tb", "a\t", "\ta", "a\t\ta", ""]
    tokenizer = WordTokenizer(["<eos>", "<unk>", "a", "b", "'s", "@-@", "It"], "moses")
    assert len(tokenizer) == 7
    assert tokenizer.get_vocab() == {"<eos>": 0, "<unk>": 1, "a": 2, "b": 3, "'s": 4, "@-@": 5, "It": 6}
    assert tokenizer.batch_decode(tokenizer(["It's a\ta-b"])["input_ids"]) == ["It's a\ta-b"]
    for lower_case, tokens in ((True, [2, 2]), (False, [3, 2])):
        for words in ("moses", "whitespace"):
            tokenizer = WordTokenizer(["<eos>", "<unk>", "a", "A"], words, lower_case)
            assert tokenizer(["A a"])["input_ids"] == [tokens]


@pytest.mark.parametrize("words", ["moses", "whitespace"])
def test_it_is_loaded_as_it_was_saved(tmp_path, words):
    tokenizer = tokenizer_of([*TOKENISED, "naïve Ærø 你好"], words)
    tokenizer.save_pretrained(tmp_path)
    again = WordTokenizer.from_pretrained(tmp_path)
    assert (again.vocabulary, again.words) == (tokenizer.vocabulary, words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer_config.json", "vocab.txt"]


@pytest.mark.parametrize("text", ["{", '{"words": "letters"}', "[]", '{"words": []}'])
def test_a_broken_configuration(tmp_path, text):
    shutil.copy(REFERENCE / "wt103/vocab.txt", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(DataError, match=r"configuration cannot be read.*tokenizer_config\.json"):
        WordTokenizer.from_pretrained(tmp_path)
