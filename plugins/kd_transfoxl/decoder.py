"""A Transformer-XL that continues texts, each row of the batch at its own position."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from kd_transfoxl.model import TransfoXLLayer, TransfoXLLMHeadModel


class TransfoXLDecoder:
    """A Transformer-XL with preallocated keys and values: a ``kdcli.lm.sampling.Decoder``.

    Each text starts with an empty memory, and its words see what they see when the whole text is read at once: with
    ``same_length`` the last ``mem_len`` positions, otherwise all. The cache has as many, and is written in a ring:
    attention depends on distances only, so it does not matter where a position is kept. ``draw`` draws words ``[rows]``
    from hidden states ``[rows, d_model]`` and uniforms ``[rows]``; by default, ``model.crit.draw``.
    """

    def __init__(self, model: TransfoXLLMHeadModel, draw: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        self.model = model
        self.draw: Callable[[Tensor, Tensor], Tensor] = draw or model.crit.draw
        self.layers = cast(list[TransfoXLLayer], list(model.transformer.layers))
        self.open(0, 0)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return torch.device(self.model.device)

    @torch.no_grad()
    def open(self, rows: int, length: int) -> None:
        """Prepare for ``rows`` texts of at most ``length`` words."""
        config = self.model.config
        self.size = min(length, config.mem_len) if config.same_length else length
        shape = (config.n_layer, rows, config.n_head, self.size, config.d_head)
        self.keys = torch.zeros(shape, dtype=self.model.dtype, device=self.device)
        self.values = torch.zeros_like(self.keys)
        sines = self.model.transformer.sines(torch.arange(self.size, device=self.device), self.model.dtype)
        # [layers, heads, d_head, size]: the keys of distances are the same for all texts.
        self.distance_keys = torch.stack(
            [layer.dec_attn.distance_keys(sines).permute(1, 2, 0) for layer in self.layers]
        )

    def step(self, tokens: Tensor, positions: Tensor, width: int, uniforms: Tensor) -> Tensor:
        """Read a word of each row and draw the next; see ``kdcli.lm.sampling.Decoder.step``."""
        return self.draw(self.hidden(tokens, positions, width), uniforms)

    def hidden(self, tokens: Tensor, positions: Tensor, width: int) -> Tensor:
        """Read a word of each row; return the last hidden states ``[rows, d_model]``."""
        width = min(width, self.size)
        distances = (positions[:, None] - torch.arange(width, device=positions.device)) % self.size  # [rows, width]
        # What is farther back than the text's beginning belongs to an earlier text.
        unseen = distances > positions[:, None]
        distances = distances.masked_fill(unseen, 0)
        hidden: Tensor = self.model.transformer.word_emb(tokens)
        for number, layer in enumerate(self.layers):
            hidden = self._layer(number, layer, hidden, positions, distances, unseen)
        return hidden

    def keep(self, rows: Tensor) -> None:
        """Continue with some of the rows only."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def _layer(
        self, number: int, layer: TransfoXLLayer, hidden: Tensor, positions: Tensor, distances: Tensor, unseen: Tensor
    ) -> Tensor:
        """Return the output of a layer for ``[rows, d_model]``; ``distances`` and ``unseen`` are ``[rows, width]``."""
        attention, width = layer.dec_attn, distances.shape[1]
        queries, keys, values = attention.heads(hidden)  # [rows, heads, d_head]
        rows = torch.arange(len(positions), device=positions.device)
        self.keys[number, rows, :, positions % self.size] = keys
        self.values[number, rows, :, positions % self.size] = values
        by_distance = torch.einsum(
            "bhd,hdj->bhj", queries + attention.r_r_bias, self.distance_keys[number, :, :, :width]
        )
        by_position = by_distance.gather(2, distances[:, None].expand(-1, by_distance.shape[1], -1))
        found = functional.scaled_dot_product_attention(
            (queries + attention.r_w_bias)[:, :, None],
            self.keys[number, :, :, :width],
            self.values[number, :, :, :width],
            attn_mask=(attention.scale * by_position).masked_fill(unseen[:, None], -torch.inf)[:, :, None],
            scale=attention.scale,
        )
        output: Tensor = layer.pos_ff(attention.out(hidden, found[:, :, 0]))
        return output
