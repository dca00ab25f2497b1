"""Any causal language model of Hugging Face as a decoder whose rows are at places of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from kdcli.api import DataError
from kdcli.lm.drawing import draw

Draw = Callable[[Tensor, Tensor], Tensor]
"""Draws tokens ``[rows]`` from logits ``[rows, vocabulary]`` and uniforms ``[rows]``."""

_CHECKED = 3
_FAR_OFF = {torch.float32: 0.02, torch.float16: 0.1, torch.bfloat16: 0.3}
"""What rounding cannot make of the logits, in their own standard deviations: GPT-2's are around -100 in bf16."""


class CausalDecoder:
    """A causal language model with a preallocated key-value cache.

    Args:
        model: Any ``AutoModelForCausalLM`` that takes ``position_ids`` and ``past_key_values``.
        draw: What draws a token; by default from the model's own distribution.
    """

    def __init__(self, model: Any, draw: Draw = draw) -> None:
        self.model = model
        self.draw = draw
        self.open(0, 0)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device(self.model.device)

    def open(self, rows: int, length: int) -> None:
        """Get ready for ``rows`` texts of at most ``length`` tokens; memory is taken by the first step."""
        self.turn = _Turn()
        layers = self.model.config.get_text_config().num_hidden_layers
        self.cache = Cache(layers=[_RowLayer(self.turn, length) for _ in range(layers)])

    def step(self, tokens: Tensor, places: Tensor, width: int, uniforms: Tensor) -> Tensor:
        """Read a token of each row and draw the next; see ``Decoder.step``."""
        return self.draw(self.logits(tokens, places, width), uniforms)

    def logits(self, tokens: Tensor, places: Tensor, width: int) -> Tensor:
        """Read a token of each row; return the logits ``[rows, vocabulary]`` of the next."""
        seen = torch.arange(width, device=tokens.device) <= places[:, None]
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=tokens.device)
        mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)
        self.turn.rows, self.turn.places = torch.arange(len(places), device=places.device), places
        self.turn.width = width
        output = self.model(
            input_ids=tokens[:, None],
            position_ids=places[:, None],
            attention_mask=mask[:, None, None],  # [rows, 1, 1, width]
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits[:, -1]  # type: ignore[no-any-return]

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the rows alone."""
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]

    @torch.inference_mode()
    def check(self, length: int) -> None:
        """Make sure that the model reads rows at places of their own as it reads texts, up to ``length`` tokens.

        Some models take another place for each token than they are told, or see more or less of the text than the
        mask says, and would sample from another distribution without a word.

        Raises:
            DataError: This one does; or its logits are no numbers.
        """
        name, hint = type(self.model).__name__, "use a model such as gpt2, Llama or Qwen"
        try:
            gap = self._gap(length - 1)
        except Exception as error:  # whatever a model raises that has no such cache
            if should_reduce_batch_size(error):
                raise
            what = f"{name} cannot be sampled from: it does not take rows at places of their own"
            raise DataError(what, hint=hint) from error
        finally:
            self.open(0, 0)
        if math.isnan(gap):
            what = f"{name} cannot be sampled from: its logits are no numbers in {self.model.dtype}"
            raise DataError(what, hint="sample in fp32, or fine-tune it again")
        if gap > _FAR_OFF.get(self.model.dtype, 0.02):
            what = f"{name} cannot be sampled from: with rows at places of their own, it sees another text"
            raise DataError(what, hint=f"{hint}; if it looks back a few tokens only, allow fewer (max_length)")

    def _gap(self, width: int) -> float:
        """Return how far the logits are from those of whole texts, at most, in standard deviations of a row's.

        The cache is that of whole texts, so that each row holds what it must not see behind its place.
        """
        random = torch.Generator().manual_seed(0)
        vocabulary = self.model.config.get_text_config().vocab_size
        texts = torch.randint(vocabulary, (_CHECKED, width), generator=random).to(self.device)
        whole = self.model(input_ids=texts, past_key_values=DynamicCache(), use_cache=True)
        self.open(_CHECKED, width)
        for ours, theirs in zip(self.cache.layers, whole.past_key_values.layers, strict=True):
            ours.keys, ours.values, ours.is_initialized = theirs.keys.clone(), theirs.values.clone(), True
        rows = torch.arange(_CHECKED, device=self.device)
        places = torch.linspace(0, width - 1, _CHECKED, device=self.device).long()
        gaps = []
        for now in (places, (places + 1).clamp(max=width - 1)):  # the second step reads what the first one wrote
            expected = whole.logits[rows, now].float()
            gap = self.logits(texts[rows, now], now, width).float() - expected
            gaps.append(
                (gap - gap.mean(1, keepdim=True)).std(1) / expected.std(1).clamp(min=1e-6)
            )  # a head may begin with zeros
        return float(torch.stack(gaps).max())


def check(model: Any, length: int) -> None:
    """Make sure that a model can be sampled from by ``CausalDecoder``; see its ``check``."""
    CausalDecoder(model).check(length)


@dataclass
class _Turn:
    """Where the next keys and values belong: what all layers of a cache must know of a step."""

    rows: Tensor | None = None
    places: Tensor | None = None
    width: int = 0


class _RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, ``[rows, heads, length, width of a head]``, each row written at its own place."""

    def __init__(self, turn: _Turn, length: int) -> None:
        super().__init__()
        self.turn = turn
        self.length = length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve the memory for the longest texts."""
        rows, heads, _, _ = key_states.shape
        self.keys = key_states.new_zeros(rows, heads, self.length, key_states.shape[-1])
        self.values = value_states.new_zeros(rows, heads, self.length, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one place of each row, ``[rows, heads, 1, width]``; return all places up to the furthest."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys[self.turn.rows, :, self.turn.places] = key_states[:, :, 0]
        self.values[self.turn.rows, :, self.turn.places] = value_states[:, :, 0]
        return self.keys[:, :, : self.turn.width], self.values[:, :, : self.turn.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many places there are, and where they start."""
        return self.turn.width, 0

    def get_seq_length(self) -> int:
        """Return how many places come before the new one."""
        return self.turn.width - 1

    def get_max_length(self) -> int:
        """Return how many places there are at most."""
        return self.length
