"""How well a language model fits texts: bits per character and word perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kdcli.lm.learner import Examples
from kdcli.lm.texts import IGNORED, TokenTexts

TOKENS = 4096
"""Enough to keep a device busy; their logits are the largest array by far."""


@dataclass(frozen=True)
class Fit:
    """How well a model fits some texts.

    The first token of a text is given, as it is in sampling; the end of the text is predicted like any token. What a
    text says beyond ``max_length`` tokens does not count.

    Attributes:
        bits_per_character: Bits of all predicted tokens over the characters of the texts.
        word_perplexity: e to the nats of all predicted tokens over the words, the end of a text being one of them.
    """

    bits_per_character: float
    word_perplexity: float

    @classmethod
    def of(cls, nats: float, texts: TokenTexts) -> Fit:
        """Return the fit of texts, as far as they are read, that take ``nats`` together."""
        read = texts.read()
        characters = sum(map(len, read))
        words = sum(len(text.split()) for text in read) + int(texts.whole.sum())
        return cls(nats / math.log(2) / characters, math.exp(min(nats / words, 700.0)))


Nats = Callable[[Tensor, Tensor], Tensor]
"""Turns what a model gives, ``scores_of`` its outputs, and the labels into the nats of each row, ``[rows]``."""


def scores_of(outputs: Any) -> Tensor:
    """Return a model's first output that is no loss: the logits, of Hugging Face's."""
    scores: Tensor = next(value for name, value in outputs.items() if name != "loss")
    return scores


def nats(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of each row, by the logits of all tokens.

    Args:
        logits: ``[rows, time, vocabulary]``.
        labels: ``int64 [rows, time]``, ``IGNORED`` behind a text's end.

    Returns:
        ``float32 [rows]``, in nats.
    """
    logits, labels = logits[:, :-1], labels[:, 1:]
    losses = [  # a row at a time: the logits of all in float32 would be the largest array by far
        functional.cross_entropy(row.float(), wanted, reduction="sum", ignore_index=IGNORED)
        for row, wanted in zip(logits, labels, strict=True)
    ]
    return torch.stack(losses)


@torch.inference_mode()
def text_nats(model: Any, texts: Examples, tokens: int = TOKENS, nats: Nats = nats) -> NDArray[np.float64]:
    """Return the nats that a model needs for each text.

    Args:
        model: A language model.
        texts: The texts.
        tokens: How many go through the model at once, padding included.
        nats: What makes nats of the model's output.

    Returns:
        ``float64 [texts]``.
    """
    lengths = texts.lengths
    found = np.zeros(len(lengths))
    order = np.argsort(-lengths, kind="stable").tolist()
    while order:
        batch = max(tokens // int(lengths[order[0]]), 1)
        rows, order = order[:batch], order[batch:]
        inputs = {name: values.to(model.device) for name, values in texts.batch(rows).items()}
        labels = inputs.pop("labels")
        found[rows] = nats(scores_of(model(**inputs, use_cache=False)), labels).double().cpu().numpy()
    return found
