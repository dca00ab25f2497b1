#!/usr/bin/env bash
# tokenizers 0.23.3: WordPieceTrainer puts words of more than 100 characters into the vocabulary, and the model that it trained
# reads each of them as the unknown token, however often it occurs: the trainer knows no limit, and the model's
# max_input_chars_per_word is 100. token_to_id finds the word. A long word that could be read in pieces is unknown as well.
# Who meets it: sequences without spaces (genes, proteins, log lines, URLs); two codes that look words up in get_vocab()
# and by encode() differ. kd met it with vocabularies of words and pieces, and looks such words up as encode() reads them.
# What to do: WordPiece(unk_token=..., max_input_chars_per_word=N) with N above the longest word, before the training.
# Seen: a sequence of 120 letters that is in the vocabulary gives ["[UNK]"]; with a limit of 200 it is one token. This
# script fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PY'
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.trainers import WordPieceTrainer

SEQUENCE = "ACGT" * 30


def train(**limit):
    """Return a tokenizer trained on one sequence, five times."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]", **limit))
    tokenizer.pre_tokenizer = Whitespace()
    trainer = WordPieceTrainer(vocab_size=1000, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator([SEQUENCE] * 5, trainer)
    assert tokenizer.token_to_id(SEQUENCE) is not None, "the trainer leaves long words out now"
    return tokenizer


found = train().encode(SEQUENCE).tokens
print("in the vocabulary, and read as", found)
assert found == ["[UNK]"], "a long word of the vocabulary is read now"
assert train().encode(SEQUENCE[:-20]).tokens != ["[UNK]"]  # 100 characters
assert train().encode(SEQUENCE + "A").tokens == ["[UNK]"]  # its pieces are all there
assert train(max_input_chars_per_word=200).encode(SEQUENCE).tokens == [SEQUENCE]
PY
echo "as described"
