"""Word vectors, for student plugins: trained ones, frozen ones, or both side by side; and how a pair is compared.

It imports torch at its top, so a plugin imports it inside of ``build``.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Kind = Literal["rand", "static", "non-static", "multichannel"]
"""Random and trained; given and frozen; given and trained; or two copies of what is given, one frozen and one trained
(Kim 2014, section 3.2)."""


class Embedding(nn.Module):
    """Word vectors of one channel or two (Kim 2014, section 3.2).

    Its weights are named ``trained.weight`` and ``frozen.weight``, ``float32 [vocabulary, size]``; one may be missing.

    Attributes:
        dimension: The size of all channels together.
    """

    def __init__(self, trained: Tensor | None, frozen: Tensor | None) -> None:
        super().__init__()
        self.trained = None if trained is None else nn.Embedding(len(trained), trained.shape[1], _weight=trained)
        self.frozen = (
            None if frozen is None else nn.Embedding(len(frozen), frozen.shape[1], _weight=frozen, _freeze=True)
        )
        self.dimension = sum(part.shape[1] for part in (trained, frozen) if part is not None)

    def forward(self, words: Tensor) -> list[Tensor]:
        """Return the word vectors of each channel, ``[..., size]``, for words ``[...]``; the trained one comes first.

        Apart, so that a model can spare the gradient of a frozen one; side by side, they are one long vector a word.
        """
        return [part(words) for part in (self.trained, self.frozen) if part is not None]


def embedding(kind: Kind, vocabulary_size: int, vectors: NDArray[np.float32] | None, dimension: int) -> Embedding:
    """Build word vectors; without given ones, every kind begins at random, in U(-0.25, 0.25).

    Trained ones are a copy of ``vectors``, ``float32 [vocabulary_size, dimension]``; frozen ones are these themselves.
    """
    if vectors is None or kind == "rand":
        start = torch.empty(vocabulary_size, dimension).uniform_(-0.25, 0.25)
    else:
        start = torch.from_numpy(vectors)
    trained = start.clone() if kind != "static" else None
    frozen = start if kind in ("static", "multichannel") else None
    return Embedding(trained, frozen)


def compared(states: Sequence[Tensor]) -> Tensor:
    """Return the states ``[batch, size]`` of each text column side by side; of a pair [h1, h2, |h1 - h2|, h1 * h2]."""
    if len(states) == 2:
        one, two = states
        states = [one, two, (one - two).abs(), one * two]
    return torch.cat(list(states), dim=1)
