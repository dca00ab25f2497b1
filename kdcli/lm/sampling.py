"""The sampler whose batch stays full: a row whose text has ended goes on with the next text.

A batch that runs on to its longest text wastes most of its work, since most texts are short. Here each row of the
batch is at a place of its own. When its text ends, it takes the next draw's first token at place 0 and goes on; what
the cache holds of the old text is masked, and written over. All that this takes is counted on the device.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_LOOK = {"cpu": 1}
_LOOK_ELSEWHERE = 16
"""Steps between looks at the state of the device: each look waits for a GPU."""


class Decoder(Protocol):
    """A model that goes on with texts, each row of the batch at its own place."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def open(self, rows: int, length: int) -> None:
        """Get ready for ``rows`` texts of at most ``length`` tokens."""

    def step(self, tokens: Tensor, places: Tensor, width: int, uniforms: Tensor) -> Tensor:
        """Read a token of each row and draw the next.

        Args:
            tokens: ``int64 [rows]``.
            places: ``int64 [rows]``, the place of each token in its text; what a row held at this place and after
                belongs to an earlier text.
            width: More than each of the places.
            uniforms: ``[rows]`` in [0, 1), which the draws depend on.

        Returns:
            ``int64 [rows]``.
        """

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows (``int64``) alone."""


@torch.inference_mode()
def sample(decoder: Decoder, first: Tensor, uniforms: Tensor, *, end: int, rows: int, ends: int = 1) -> Tensor:
    """Draw texts until each has ended or is full.

    Args:
        decoder: The model.
        first: ``int64 [draws]``, the first token of each text.
        uniforms: ``[draws, length]``: the draw of each token but the first; ``length`` is that of the longest text,
            its end included.
        end: The token that ends a text.
        rows: Texts at once.
        ends: At which ``end`` a text is over: the second one, where the first stands between two texts.

    Returns:
        ``int64 [draws, length]``: the texts, filled up with ``end``. One with fewer of them than ``ends`` has not come
        to its end.
    """
    draws, length = uniforms.shape
    device = decoder.device
    # One draw more, which nobody asked for, is where the rows that have nothing left to do go on.
    first = torch.cat([first, first.new_tensor([end])]).to(device)
    uniforms = torch.cat([uniforms, uniforms.new_zeros(1, length)]).to(device)
    texts = torch.full((draws + 1, length), end, device=device)
    texts[:, 0] = first

    rows = min(rows, draws)
    decoder.open(rows, length)
    draw = torch.arange(rows, device=device)
    place = torch.zeros_like(draw)
    token = first[draw]
    ended = torch.zeros_like(draw)  # the ends that each row's text has had
    waiting = torch.tensor(rows, device=device)  # the next draw that has no row yet
    steps = _LOOK.get(device.type, _LOOK_ELSEWHERE)
    furthest = 0
    while draws:
        for _ in range(steps):
            furthest = min(furthest + 1, length - 1)
            token = decoder.step(token, place, furthest, uniforms[draw, place + 1])
            place = place + 1
            texts[draw, place] = token
            # A row without a draw is always over: it stays at place 0.
            ended = ended + (token == end)
            over = (ended == ends) | (place == length - 1) | (draw == draws)
            following = waiting + over.cumsum(0) - 1
            waiting = waiting + over.sum()
            draw = torch.where(over, following.clamp(max=draws), draw)
            token = torch.where(over, first[draw], token)
            place = torch.where(over, 0, place)
            ended = torch.where(over, 0, ended)
        busy = draw < draws
        active, furthest = torch.stack([busy.sum(), place.max()]).tolist()
        if not active:
            break
        if active <= len(draw) // 2:
            rest = busy.nonzero()[:, 0]
            decoder.keep(rest)
            draw, place, token, ended = draw[rest], place[rest], token[rest], ended[rest]
    return texts[:draws]
