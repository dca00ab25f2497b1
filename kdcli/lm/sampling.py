"""Sampling in a batch that stays full: a row whose text has ended continues with the next text.

A batch that runs to the end of its longest text wastes most of its work, since most texts are short. Here each row has
its own position. When its text ends, it takes the first token of the next draw at position 0; the old text in the cache
is masked, and then overwritten. All bookkeeping stays on the device.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdcli.api import Part

_SYNC_STEPS = {"cpu": 1}
_SYNC_STEPS_ELSEWHERE = 16  # steps between two looks at the device's state: each look waits for a GPU
_BLOCK = 256
_CACHED_ROWS = 64  # rows whose weights stay in a CPU's cache


class Decoder(Protocol):
    """A model that continues texts, each row of the batch at its own position."""

    @property
    def device(self) -> torch.device:
        """The device of the model."""

    def open(self, rows: int, length: int) -> None:
        """Prepare for ``rows`` texts of at most ``length`` tokens."""

    def step(self, tokens: Tensor, positions: Tensor, width: int, uniforms: Tensor) -> Tensor:
        """Read a token of each row, ``int64 [rows]``, and draw the next with ``uniforms``, ``[rows]`` in [0, 1).

        ``positions``, ``int64 [rows]`` and less than ``width``, are those of the tokens in their texts; what the cache
        of a row holds at its position and after belongs to an earlier text.
        """

    def keep(self, rows: Tensor) -> None:
        """Continue with some of the rows (``int64``) only."""


@torch.inference_mode()
def sample(decoder: Decoder, first: Tensor, uniforms: Tensor, *, end: int, rows: int, ends: int = 1) -> Tensor:
    """Draw texts until each has ended or is full, ``rows`` at once.

    Args:
        decoder: The model.
        first: ``int64 [draws]``, the first token of each text.
        uniforms: ``[draws, length]``: the draw of each token but the first; ``length`` includes the end of a text.
        end: The token that ends a text.
        rows: Texts at once.
        ends: Which ``end`` closes a text: 2 for pairs, whose first one stands between the two texts.

    Returns:
        ``int64 [draws, length]``, filled up with ``end``; a text with fewer of them than ``ends`` is unfinished.
    """
    draws, length = uniforms.shape
    device = decoder.device
    # One spare draw, which is not returned, occupies the rows that have nothing left to do.
    first = torch.cat([first, first.new_tensor([end])]).to(device)
    uniforms = torch.cat([uniforms, uniforms.new_zeros(1, length)]).to(device)
    texts = torch.full((draws + 1, length), end, device=device)
    texts[:, 0] = first

    rows = min(rows, draws)
    decoder.open(rows, length)
    draw = torch.arange(rows, device=device)
    position = torch.zeros_like(draw)
    token = first[draw]
    ended = torch.zeros_like(draw)  # the ends that each row's text has had
    waiting = torch.tensor(rows, device=device)  # the next draw that has no row yet
    steps = _SYNC_STEPS.get(device.type, _SYNC_STEPS_ELSEWHERE)
    furthest = 0
    while draws:
        for _ in range(steps):
            furthest = min(furthest + 1, length - 1)
            token = decoder.step(token, position, furthest, uniforms[draw, position + 1])
            position = position + 1
            texts[draw, position] = token
            # A row without a draw is always over: it stays at position 0.
            ended = ended + (token == end)
            over = (ended == ends) | (position == length - 1) | (draw == draws)
            following = waiting + over.cumsum(0) - 1
            waiting = waiting + over.sum()
            draw = torch.where(over, following.clamp(max=draws), draw)
            token = torch.where(over, first[draw], token)
            position = torch.where(over, 0, position)
            ended = torch.where(over, 0, ended)
        busy = draw < draws
        active, furthest = torch.stack([busy.sum(), position.max()]).tolist()
        if not active:
            break
        if active <= len(draw) // 2:
            rest = busy.nonzero()[:, 0]
            decoder.keep(rest)
            draw, position, token, ended = draw[rest], position[rest], token[rest], ended[rest]
    return texts[:draws]


def draw(logits: Tensor, uniforms: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Draw a token for each row, ``int64 [rows]``, by inverting the cumulative sum of its distribution.

    The sum is taken over blocks of the vocabulary first, then inside the block that was hit: in float64, and without a
    second array as large as the logits.

    Args:
        logits: ``[rows, vocabulary]``.
        uniforms: ``float64 [rows]`` in [0, 1) (float32 where the device has no float64).
        temperature: Divides the logits.
        top_k: Draw among so many most likely tokens, and those as likely as the last of them; 0 = among all.
        top_p: Draw among the fewest most likely tokens that together have this probability, of those of ``top_k``.
    """
    if logits.device.type == "cpu" and len(logits) > _CACHED_ROWS:
        pieces = zip(torch.split(logits, _CACHED_ROWS), torch.split(uniforms, _CACHED_ROWS), strict=True)
        return torch.cat([draw(*piece, temperature=temperature, top_k=top_k, top_p=top_p) for piece in pieces])
    logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    if 0 < top_k < logits.shape[1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], -torch.inf)
    weights = logits.softmax(dim=-1)
    if top_p < 1.0:
        ranked, order = weights.sort(dim=-1, descending=True, stable=True)
        inside = ranked.cumsum(dim=-1) - ranked < top_p
        weights = weights * torch.zeros_like(inside).scatter(1, order, inside)
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
    """Find the columns ``int64 [rows]`` where the sum of ``weights [rows, columns]`` passes the ``targets [rows]``.

    None has weight 0. The second result is what is left of the targets there, ``[rows]``.
    """
    sums = weights.cumsum(dim=-1)
    end = sums[:, -1]  # a target that rounding has put beyond it is moved back
    targets = torch.minimum(targets, torch.nextafter(end, torch.zeros_like(end)))[:, None]
    found = torch.searchsorted(sums, targets, right=True)
    before = sums.gather(1, found) - weights.gather(1, found)
    # Rounding may have put the target before the weight that it hit: below 0, it would find a weight of 0.
    return found[:, 0], (targets - before).clamp(min=0)[:, 0]


def part_uniforms(part: Part, length: int) -> NDArray[np.float64]:
    """Return ``[draws, length]`` numbers in [0, 1); those of a draw depend on the seed and its number alone."""
    blocks = -(-length // 4)  # Philox makes four numbers of each value of its counter
    philox = np.random.Philox(key=part.seed, counter=part.first * blocks)
    return np.random.Generator(philox).random((part.count, 4 * blocks))[:, :length]
