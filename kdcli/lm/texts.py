"""Texts as tokens for a causal language model, and how well a model fits them (Tang, Lu, Lin 2019)."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of a token that is not predicted."""
TOKENS = 4096  # at once: enough to keep a device busy; their logits are by far the largest array
SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
"""BERT's special tokens, in the order of their numbers."""
Nats = Callable[[Tensor, Tensor], Tensor]
"""Turns a model's output, ``scores_of`` it, and the labels into the nats of each row, ``[rows]``."""


@dataclass(frozen=True)
class TokenRows:
    """Tokens of all rows end to end: a ``TrainingSet`` that is the same in every epoch."""

    fields: dict[str, np.ndarray]  # for each input of the model, ``int32 [tokens]``
    padding: dict[str, int]  # the value that fills it up
    offsets: np.ndarray  # ``int64 [rows + 1]``, where each row starts
    labels: np.ndarray | None = None  # classes, ``int64 [rows]``, or scores, float32; None where a field is ``labels``
    left: bool = False  # whether padding stands before the text, as in XLNet

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """``int64 [rows]``: tokens of each row."""
        return np.diff(self.offsets)

    @property
    def digest(self) -> str:
        """The SHA-256 of all arrays (hex digits)."""
        digest = hashlib.sha256()
        for values in (*self.fields.values(), self.offsets, *([] if self.labels is None else [self.labels])):
            digest.update(values.tobytes())
        return digest.hexdigest()

    @property
    def rows(self) -> Self:
        """These rows, in every epoch."""
        return self

    def start(self, epoch: int) -> None:
        """Do nothing."""

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the model's inputs for some rows, ``[batch, time]``, padded to the longest of them, and ``labels``.

        Labels are ``[batch]``, or ``[batch, time]`` with -100 where nothing is predicted.
        """
        starts = self.offsets[rows]
        lengths = self.offsets[np.asarray(rows) + 1] - starts
        used = np.arange(lengths.max()) < lengths[:, None]
        used = used[:, ::-1] if self.left else used
        flat = np.concatenate([np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)])
        tensors = {"attention_mask": torch.from_numpy(used.astype(np.int64))}
        for name, values in self.fields.items():
            padded = np.full(used.shape, self.padding[name], np.int64)
            padded[used] = values[flat]
            tensors[name] = torch.from_numpy(padded)
        return tensors if self.labels is None else {**tensors, "labels": torch.from_numpy(self.labels[rows])}


class TrainingSet(Protocol):
    """A training or dev set, whose rows may differ from epoch to epoch."""

    @property
    def rows(self) -> TokenRows:
        """The rows of this epoch."""

    def start(self, epoch: int) -> None:
        """Prepare the rows of an epoch, counted from 0; they depend on the epoch alone, so that a training resumes."""


class TokenTexts:
    """Texts as tokens, one text a sequence with the end-of-text token behind it.

    With a seed, each text is cut in two at a random character, anew in each epoch, and the pieces are encoded
    separately, so that the model learns to continue a word that was cut. A text of more than ``max_length`` tokens is
    read up to there, and has no end.

    Texts stay whole (``seed`` is None) where the tokenizer puts a space before what it encodes, as some of
    SentencePiece's and word tokenizers do: the model would learn the cut.

    Attributes:
        whole: ``bool [texts]``, whether a text is read to its end.
        rows: Its tokens, the end included, as ``input_ids`` and as ``labels``, padded on the right.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any, max_length: int, seed: int | None = None) -> None:
        self.texts, self.tokenizer, self.max_length = texts, tokenizer, max_length
        joins = self._decode([*chain(*self._encode(["hel", "lo"]))]) == "hello"
        self.seed = seed if joins else None
        self._read(0)

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The tokens of all texts, one after the other."""
        return self.rows.fields["input_ids"]

    def start(self, epoch: int) -> None:
        """Encode the texts as they are learned in this epoch."""
        if self.seed is not None:
            self._read(epoch)

    def read(self) -> list[str]:
        """Return the texts, each as far as it is read."""
        rows = zip(self.texts, self.whole, pairwise(self.rows.offsets), strict=True)
        return [text if whole else self._decode(self.tokens[start:end]) for text, whole, (start, end) in rows]

    def _read(self, epoch: int) -> None:
        if self.seed is None:
            encoded = self._encode(self.texts)
        else:
            random = np.random.default_rng((self.seed, epoch)).random(len(self.texts))
            cuts = [int(share * len(text)) for share, text in zip(random, self.texts, strict=True)]
            heads = self._encode([text[:cut] for cut, text in zip(cuts, self.texts, strict=True)])
            tails = self._encode([text[cut:] for cut, text in zip(cuts, self.texts, strict=True)])
            encoded = [head + tail for head, tail in zip(heads, tails, strict=True)]
        end = self.tokenizer.eos_token_id
        read = [[*tokens, end][: self.max_length] for tokens in encoded]
        self.whole = np.array([len(tokens) < self.max_length for tokens in encoded], bool)
        offsets = np.cumsum([0, *map(len, read)], dtype=np.int64)
        tokens = np.fromiter(chain.from_iterable(read), np.int32, offsets[-1])
        labels = tokens.copy()
        labels[offsets[:-1]] = IGNORED  # the first token is not predicted
        self.rows = TokenRows({"input_ids": tokens, "labels": labels}, {"input_ids": end, "labels": IGNORED}, offsets)

    def _decode(self, tokens: Sequence[int] | NDArray[np.int32]) -> str:
        return str(self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        # Split, a text that spells <|endoftext|> does not end there.
        how = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
        return list(self.tokenizer(list(texts), **how, verbose=False)["input_ids"]) if len(texts) else []


def causal_fit(nats: float, texts: TokenTexts) -> dict[str, float]:
    """Return ``bits_per_character`` and ``word_perplexity`` of texts whose predicted tokens take ``nats`` together.

    The first token of a text is not predicted, as in sampling; the end of the text is, and counts as a word. What a
    text holds beyond ``max_length`` tokens does not count.
    """
    read = texts.read()
    words = sum(len(text.split()) for text in read) + int(texts.whole.sum())
    perplexity = math.exp(min(nats / words, 700.0))
    return {"bits_per_character": nats / math.log(2) / sum(map(len, read)), "word_perplexity": perplexity}


def scores_of(outputs: Any) -> Tensor:
    """Return the first output that is not a loss: the logits, in Hugging Face models."""
    scores: Tensor = next(value for name, value in outputs.items() if name != "loss")
    return scores


def token_nats(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of each row's next tokens, ``float32 [rows]``.

    ``logits`` are ``[rows, time, vocabulary]``, ``labels`` ``int64 [rows, time]``, ``IGNORED`` behind a text's end.
    """
    logits, labels = logits[:, :-1], labels[:, 1:]
    losses = [  # one row at a time: all logits in float32 would be by far the largest array
        functional.cross_entropy(row.float(), target, reduction="sum", ignore_index=IGNORED)
        for row, target in zip(logits, labels, strict=True)
    ]
    return torch.stack(losses)


@torch.inference_mode()
def text_nats(model: Any, texts: TrainingSet, tokens: int = TOKENS, nats: Nats = token_nats) -> NDArray[np.float64]:
    """Return the nats of each text, ``float64 [texts]``; ``tokens``, padding included, go through the model at once."""
    lengths = texts.rows.lengths
    total = np.zeros(len(lengths))
    order = np.argsort(-lengths, kind="stable").tolist()
    while order:
        batch = max(tokens // int(lengths[order[0]]), 1)
        rows, order = order[:batch], order[batch:]
        inputs = {name: values.to(model.device) for name, values in texts.rows.batch(rows).items()}
        labels = inputs.pop("labels")
        total[rows] = nats(scores_of(model(**inputs, use_cache=False)), labels).double().cpu().numpy()
    return total


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
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=fixed, show_progress=False)
    draft.train_from_iterator(batches, trainer)
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
