"""The maximum over time of packed texts.

A function of its own, for speed: one ``torch.maximum`` a step would write down a gradient for every word at every step,
and padding the texts for one ``amax`` takes longer still.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def maximum(outputs: Tensor, counts: list[int]) -> Tensor:
    """Return the largest value of each unit over the words of each text.

    Args:
        outputs: Hidden states, ``[2, all words, hidden]``, in the order of ``kd_bilstm.model.Packed``.
        counts: The number of texts that have a word at each step.

    Returns:
        ``[2, texts, hidden]``, the texts in the packed order.
    """
    result: Tensor = _Maximum.apply(outputs, counts)  # type: ignore[no-untyped-call]
    return result


class _Maximum(torch.autograd.Function):
    """The gradient goes to the first of equal maxima, as that of ``torch.max`` goes to one of them."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, counts: list[int]) -> Tensor:
        steps = torch.split(outputs, counts, dim=1)  # [2, texts that have a word here, hidden]
        largest = steps[0].clone()
        for step in steps[1:]:
            reached = largest[:, : step.shape[1]]
            torch.maximum(reached, step, out=reached)
        ctx.save_for_backward(outputs, largest)
        ctx.counts = counts
        return largest

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        outputs, largest = ctx.saved_tensors
        left = above.clone()
        gradient = torch.empty_like(outputs)
        for step, taken in zip(*(torch.split(each, ctx.counts, dim=1) for each in (outputs, gradient)), strict=True):
            rows = step.shape[1]
            torch.mul(left[:, :rows], step == largest[:, :rows], out=taken)
            left[:, :rows] -= taken
        return gradient, None
