"""One token for each row, drawn from the model's distribution by inverting its cumulative sum."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.api import Part

_BLOCK = 256
_AT_ONCE = 64
"""Rows whose weights stay in a CPU's cache."""


def draw(logits: Tensor, uniforms: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Draw a token for each row.

    The cumulative sum is taken over blocks of the vocabulary first, then inside the block that was hit: in float64,
    and without a second array as large as the logits.

    Args:
        logits: ``[rows, vocabulary]``.
        uniforms: ``float64 [rows]`` (float32 where the device has no other), in [0, 1): the draw.
        temperature: Divides the logits.
        top_k: Draw among so many most likely tokens, and those as likely as the last of them; 0 = among all.
        top_p: Draw among the fewest most likely tokens that together have this probability, of those of ``top_k``.

    Returns:
        ``int64 [rows]``.
    """
    if logits.device.type == "cpu" and len(logits) > _AT_ONCE:
        pieces = zip(torch.split(logits, _AT_ONCE), torch.split(uniforms, _AT_ONCE), strict=True)
        return torch.cat([draw(*piece, temperature=temperature, top_k=top_k, top_p=top_p) for piece in pieces])
    logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    weights = logits.softmax(dim=-1)
    if top_p < 1.0:
        weights = weights * _nucleus(weights, top_p)
    rows, words = weights.shape
    whole = words // _BLOCK
    sums = torch.zeros(rows, -(-words // _BLOCK), dtype=uniforms.dtype, device=weights.device)
    sums[:, :whole] = weights[:, : whole * _BLOCK].view(rows, whole, _BLOCK).sum(dim=-1)
    if whole < sums.shape[1]:
        sums[:, whole] = weights[:, whole * _BLOCK :].sum(dim=-1)
    block, rest = invert(sums, uniforms * sums.sum(dim=-1))
    inside = block[:, None] * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    some = weights.gather(1, inside.clamp(max=words - 1)).masked_fill(inside >= words, 0.0)
    return block * _BLOCK + invert(some.to(uniforms.dtype), rest)[0]


def invert(weights: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Find where the cumulative sum of the weights passes each target, and how much of the target is left there.

    A target that rounding has put beyond the end is taken back below it, so that no weight of 0 is ever found.

    Args:
        weights: ``[rows, places]``, none below 0.
        targets: ``[rows]``, from 0 to the sum of the weights.

    Returns:
        The places, ``int64 [rows]``, and what is left of the targets, ``[rows]``, less than the weights there.
    """
    sums = weights.cumsum(dim=-1)
    end = sums[:, -1]
    targets = torch.minimum(targets, torch.nextafter(end, torch.zeros_like(end)))[:, None]
    found = torch.searchsorted(sums, targets, right=True)
    before = sums.gather(1, found) - weights.gather(1, found)
    # Rounding may have put the target before the weight that it hit: below 0, it would find a weight of 0.
    return found[:, 0], (targets - before).clamp(min=0)[:, 0]


def uniforms_of(part: Part, length: int) -> NDArray[np.float64]:
    """Return ``[draws, length]`` numbers in [0, 1); those of a draw depend on the seed and its number alone."""
    blocks = -(-length // 4)  # Philox makes four numbers of each value of its counter
    philox = np.random.Philox(key=part.seed, counter=part.first * blocks)
    return np.random.Generator(philox).random((part.count, 4 * blocks))[:, :length]


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """Return ``bool [rows, vocabulary]``: the fewest most likely tokens whose probabilities reach ``top_p``."""
    ranked, order = weights.sort(dim=-1, descending=True, stable=True)
    inside = ranked.cumsum(dim=-1) - ranked < top_p
    return torch.zeros_like(inside).scatter(1, order, inside)
