"""WordPiece vocabularies trained on texts: the tokenizer of BERT with another vocabulary."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""BERT's special tokens, in the order of their numbers."""


def train_wordpiece(texts: Iterable[list[str]], vocab_size: int) -> Tokenizer:
    """Train an uncased WordPiece tokenizer on batches of texts, at most ``vocab_size`` pieces, special ones included.

    It is BERT's in all but the vocabulary, and the same texts always give the same.
    """
    batches = list(texts)
    draft = _wordpiece({})
    inner = {
        character
        for batch in batches
        for text in batch
        for word, _ in draft.pre_tokenizer.pre_tokenize_str(draft.normalizer.normalize_str(text))
        for character in word[1:]
    }
    # The trainer numbers these pieces in the order of a hash table and breaks ties by number, so that two runs
    # differ. As "special" tokens they have their numbers beforehand; the tokenizer that is returned has fewer.
    fixed = [*SPECIAL.values(), *(f"##{character}" for character in sorted(inner))]
    draft.train_from_iterator(
        batches, trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=fixed, show_progress=False)
    )
    vocabulary = draft.get_vocab(with_added_tokens=False)
    tokenizer = _wordpiece(vocabulary)
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    first, last = ((SPECIAL[name], vocabulary[SPECIAL[name]]) for name in ("cls_token", "sep_token"))
    tokenizer.post_processor = processors.BertProcessing(last, first)
    return tokenizer


def _wordpiece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
