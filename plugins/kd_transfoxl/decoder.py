"""A Transformer-XL that goes on with texts, each row of the batch at its own place."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from kd_transfoxl.model import Layer, TransfoXLLMHeadModel

Draw = Callable[[Tensor, Tensor], Tensor]
"""Draws words ``[rows]`` from hidden states ``[rows, d_model]`` and uniforms ``[rows]``."""


class TransfoXLDecoder:
    """A Transformer-XL with preallocated keys and values: a ``kdcli.lm.sampling.Decoder``.

    Each text starts with an empty memory, and its words see what they see when the whole text is read at once: with
    ``same_length`` the last ``mem_len`` places, otherwise all. So many places the memory has; behind its last one it
    goes on with its first. Attention asks for distances only, so that it does not matter where a place is kept.

    Args:
        model: The model.
        draw: What draws a word; by default from the model's own distribution, ``model.crit.draw``.
    """

    def __init__(self, model: TransfoXLLMHeadModel, draw: Draw | None = None) -> None:
        self.model = model
        self.draw: Draw = draw or model.crit.draw
        self.layers = cast(list[Layer], list(model.transformer.layers))
        self.open(0, 0)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device(self.model.device)

    @torch.no_grad()
    def open(self, rows: int, length: int) -> None:
        """Get ready for ``rows`` texts of at most ``length`` words."""
        config = self.model.config
        self.size = min(length, config.mem_len) if config.same_length else length
        shape = (config.n_layer, rows, config.n_head, self.size, config.d_head)
        self.keys = torch.zeros(shape, dtype=self.model.dtype, device=self.device)
        self.values = torch.zeros_like(self.keys)
        sines = self.model.transformer.sines(torch.arange(self.size, device=self.device), self.model.dtype)
        # [layers, heads, d_head, size]: what a place's distance says does not depend on the text.
        self.distance_keys = torch.stack(
            [layer.dec_attn.distance_keys(sines).permute(1, 2, 0) for layer in self.layers]
        )

    def step(self, tokens: Tensor, places: Tensor, width: int, uniforms: Tensor) -> Tensor:
        """Read a word of each row and draw the next; see ``kdcli.lm.sampling.Decoder.step``."""
        return self.draw(self.hidden(tokens, places, width), uniforms)

    def hidden(self, tokens: Tensor, places: Tensor, width: int) -> Tensor:
        """Read a word of each row; return the last hidden states ``[rows, d_model]``."""
        width = min(width, self.size)
        distances = (places[:, None] - torch.arange(width, device=places.device)) % self.size  # [rows, width]
        # What is kept farther back than the text's beginning belongs to an earlier text.
        unseen = distances > places[:, None]
        distances = distances.masked_fill(unseen, 0)
        hidden: Tensor = self.model.transformer.word_emb(tokens)
        for number, layer in enumerate(self.layers):
            hidden = self._layer(number, layer, hidden, places, distances, unseen)
        return hidden

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows alone."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def _layer(
        self, number: int, layer: Layer, hidden: Tensor, places: Tensor, distances: Tensor, unseen: Tensor
    ) -> Tensor:
        """Return what a layer makes of ``[rows, d_model]``; ``distances`` and ``unseen`` are ``[rows, width]``."""
        attention, width = layer.dec_attn, distances.shape[1]
        queries, keys, values = attention.heads(hidden)  # [rows, heads, d_head]
        rows = torch.arange(len(places), device=places.device)
        self.keys[number, rows, :, places % self.size] = keys
        self.values[number, rows, :, places % self.size] = values
        by_distance = torch.einsum(
            "bhd,hdj->bhj", queries + attention.r_r_bias, self.distance_keys[number, :, :, :width]
        )
        by_place = by_distance.gather(2, distances[:, None].expand(-1, by_distance.shape[1], -1))
        found = functional.scaled_dot_product_attention(
            (queries + attention.r_w_bias)[:, :, None],
            self.keys[number, :, :, :width],
            self.values[number, :, :, :width],
            attn_mask=(attention.scale * by_place).masked_fill(unseen[:, None], -torch.inf)[:, :, None],
            scale=attention.scale,
        )
        after: Tensor = layer.pos_ff(attention.out(hidden, found[:, :, 0]))
        return after
