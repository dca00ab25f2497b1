"""Word vectors made from a pretrained encoder, without any download of vectors."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from kdcli.api import MASK, QuietReporter, Reporter
from kdcli.models import hf
from kdcli.models.adapter import base_of
from kdcli.student.vocabulary import CONTINUES

SPREAD = 0.25 / 3**0.5  # standard deviation of U(-0.25, 0.25), from which the paper draws the vectors of unknown words

_BYTES, _SENTENCE = "\u0120", "\u2581"
"""The beginning of a piece at the start of a word, in byte-level BPE and in SentencePiece."""
_LETTER = "a"  # a text of one piece: a piece inside a word, which no text begins with, takes its place
_MAX_PIECES = 64
_BATCH = 128


def encoder_vectors(
    encoder: str | Path, words: Sequence[str], dimension: int, *, device: str, reporter: Reporter = QuietReporter()
) -> NDArray[np.float32]:
    """Make word vectors from an encoder, ``float32 [words, dimension]``, at most as wide as its states.

    Each word goes alone through the encoder; the last states of its word pieces, special tokens left out, are
    averaged, see ``project``. The vocabulary's ``[MASK]`` and ``[PAD]`` are the encoder's own, and so are its pieces,
    ``##ing``. A word that has no word pieces gets zeros, the centre of all words.
    """
    folder = _find(encoder, reporter)
    tokenizer, model = hf.load_tokenizer(folder), hf.load_model(folder, AutoModel, allow_new="pooler")
    largest = model.config.hidden_size
    if dimension > largest:
        what = f"student.dimension is {dimension}, and the states of {encoder} have {largest} values"
        reporter.warn(f"{what}: the vectors have {largest}")
        dimension = largest
    own = {MASK: tokenizer.mask_token, "[PAD]": tokenizer.pad_token}
    ids = tokenizer.get_vocab()
    pieces = np.array([ids.get(word, ids.get(word[2:], -1)) if word.startswith(CONTINUES) else -1 for word in words])
    texts = [_LETTER if piece >= 0 else own.get(word) or word for word, piece in zip(words, pieces, strict=True)]
    states, known = _states(texts, pieces, tokenizer, model.to(device), reporter)
    vectors = np.zeros((len(words), dimension), np.float32)
    vectors[known] = project(states[known], dimension)
    return vectors


def encoder_words(encoder: str | Path, reporter: Reporter) -> Iterator[str]:
    """Give the whole words of an encoder's vocabulary, in its order; such vocabularies begin with the frequent ones."""
    yield from (word for word in _wordpiece(encoder, reporter) if not word.startswith(CONTINUES))


def encoder_pieces(encoder: str | Path, reporter: Reporter) -> Iterator[str]:
    """Give the pieces that cover most words: single characters that begin one, and those inside of words, ``##ing``."""
    for word in _wordpiece(encoder, reporter):
        piece = word.removeprefix(CONTINUES)
        if piece.isalnum() and (len(piece) == 1 or piece != word):
            yield word


def _wordpiece(encoder: str | Path, reporter: Reporter) -> Iterator[str]:
    """Give an encoder's vocabulary in its order, as WordPiece writes it: what begins a word plain, the rest with ##."""
    vocabulary = hf.load_tokenizer(_find(encoder, reporter)).get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    # The vocabularies of GPT-2 and RoBERTa have signs of Markdown, ## and ###, too: the most frequent mark counts.
    mark = max((_BYTES, _SENTENCE, CONTINUES), key=lambda sign: sum(piece.startswith(sign) for piece in pieces))
    for piece in pieces:
        plain = piece.removeprefix(mark)
        if mark == CONTINUES:
            yield piece
        elif mark != _BYTES or plain.isascii():  # else the bytes of other letters, written as letters
            yield plain if piece.startswith(mark) else CONTINUES + piece


def _find(encoder: str | Path, reporter: Reporter) -> Path:
    """Return the folder of an encoder; an adapter stands for the base that it belongs to."""
    folder = hf.find_model(encoder, reporter, key="student.vectors", adapters=True)
    return base_of(folder, reporter) if (folder / hf.ADAPTER).is_file() else folder


def project(states: NDArray[np.floating[Any]], dimension: int) -> NDArray[np.float32]:
    """Centre ``[words, hidden]`` states, reduce them by PCA to ``[words, dimension]``, scale them to ``SPREAD``.

    One factor for all components keeps the proportions of distances: a student learns better. The sign of each
    component is the one that makes its largest loading positive.
    """
    centred = states.astype(np.float64)
    centred -= centred.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :dimension]
    largest = np.abs(axes).argmax(axis=0)
    components = centred @ (axes * np.sign(axes[largest, np.arange(dimension)]))
    spread = components.std()
    components *= SPREAD / spread if spread > 0 else 0
    return np.asarray(components, np.float32)


@torch.inference_mode()
def _states(
    texts: Sequence[str], own: NDArray[np.int64], tokenizer: Any, model: Any, reporter: Reporter
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Average the states of each text's word pieces, ``[texts, hidden]``; also tell which have any, ``[texts]``.

    Where ``own [texts]`` is not -1, the text has one piece, and this id is read in its place.
    """
    cut = {"truncation": True, "max_length": _MAX_PIECES}
    lengths = [len(pieces) for pieces in tokenizer(texts, **cut)["input_ids"]]
    order = np.argsort(lengths, kind="stable")
    states = np.zeros((len(texts), model.config.hidden_size), np.float32)
    known = np.zeros(len(texts), np.bool_)
    with reporter.progress("vectors from the encoder", len(texts), "words") as progress:
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            batch = tokenizer(
                [texts[row] for row in rows], **cut, padding=True, return_special_tokens_mask=True, return_tensors="pt"
            ).to(model.device)
            # The mask of special tokens covers the padding too.
            pieces = 1 - batch.pop("special_tokens_mask").unsqueeze(-1)  # [batch, time, 1]
            ids = torch.from_numpy(own[rows]).to(model.device)[:, None]  # [batch, 1]
            inside = (ids >= 0) & (pieces[:, :, 0] > 0)
            batch["input_ids"] = torch.where(inside, ids, batch["input_ids"])
            hidden = model(**batch).last_hidden_state  # [batch, time, hidden]
            counts = pieces.sum(dim=1)
            states[rows] = ((hidden * pieces).sum(dim=1) / counts.clamp(min=1)).cpu().numpy()
            known[rows] = (counts.squeeze(-1) > 0).cpu().numpy()
            progress.advance(len(rows))
    return states, known
