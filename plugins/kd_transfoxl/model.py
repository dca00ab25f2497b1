"""A Transformer-XL (Dai et al. 2019, arXiv 1901.02860) with the weight names of ``transfo-xl-wt103``.

The texts of a task are short: each is read at once, so there is no memory of earlier segments (section 3.2). Attention
depends on distances, not on positions (section 3.3). Shapes are ``[rows, time, ...]``.
"""

import math
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, initialization
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

from kd_transfoxl.adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from kdcli.api import DataError

FIXED = {"attn_type": 0, "pre_lnorm": False, "untie_r": True}
"""Keys of a configuration that have the published value in each model that kd reads."""


class TransfoXLConfig(PretrainedConfig):  # type: ignore[misc]
    """The configuration, with the keys and the defaults of the published ``config.json`` of ``transfo-xl-wt103``."""

    model_type = "transfo-xl"
    attribute_map: ClassVar[dict[str, str]] = {
        "n_token": "vocab_size",
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 267735
    # The first word of each cluster of the adaptive softmax but the first; none for a plain softmax.
    cutoffs: list[int] = field(default_factory=lambda: [20000, 40000, 200000])
    d_model: int = 1024
    d_embed: int = 1024
    n_head: int = 16
    d_head: int = 64
    d_inner: int = 4096
    div_val: int = 4  # embeddings of cluster ``i`` are ``d_embed // div_val**i`` wide
    n_layer: int = 18
    mem_len: int = 1600  # with ``same_length``, the positions that a word sees, itself included
    clamp_len: int = 1000  # greater distances count as this one; 0 or less = no limit
    same_length: bool = True
    tie_projs: list[bool] | None = None  # whether softmax and embeddings of a cluster share a projection
    tie_word_embeddings: bool = True
    dropout: float = 0.1  # of embeddings, distances and outputs of layers
    dropatt: float = 0.0  # of attention weights
    init_std: float = 0.02
    proj_init_std: float = 0.01
    layer_norm_epsilon: float = 1e-5
    eos_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        self.cutoffs = list(self.cutoffs)
        if self.tie_projs is None:
            self.tie_projs = [cluster > 0 for cluster in range(len(self.cutoffs) + 1)]
        super().__post_init__(**kwargs)

    @property
    def window(self) -> int:
        """The positions that a word sees, itself included."""
        return self.mem_len if self.same_length else sys.maxsize

    def check(self, file: Path | None = None) -> None:
        """Check the values that the model depends on; one of no model is a ``DataError`` with its key."""
        clusters, projections = len(self.cutoffs) + 1, len(self.tie_projs or [])
        rising = all(one < other for one, other in pairwise([0, *self.cutoffs, self.vocab_size]))
        wide = self.div_val > 1 and self.d_embed // self.div_val ** (clusters - 1) > 0
        for key, sound, must in (
            *((key, getattr(self, key, value) == value, f"be {value}, as published") for key, value in FIXED.items()),
            ("cutoffs", rising, f"rise from 1 on to less than {self.vocab_size}, the vocabulary"),
            ("tie_projs", projections == clusters, f"be {clusters}, one for each cluster"),
            ("d_embed", wide, f"leave the last cluster a width, with a div_val of 2 or more ({self.div_val})"),
            ("d_model", self.d_model % 2 == 0, "be even: half of it are sines"),
            ("mem_len", self.window > 0, "be 1 or more with same_length: a word sees itself"),
        ):
            if not sound:
                what = f"kd reads no such Transformer-XL: {key} is {getattr(self, key)}, and must {must}"
                raise DataError(what, file=file, key=key, hint="change it, or take the published configuration")


@dataclass
class TransfoXLOutput(ModelOutput):  # type: ignore[misc]
    """The output for some texts."""

    losses: Tensor | None = None  # [rows, time - 1], the nats of each word but the first, 0 for padding
    hidden: Tensor | None = None  # [rows, 1, d_model], of the next word, with a cache


class TransfoXLLMHeadModel(PreTrainedModel):  # type: ignore[misc]
    """A Transformer-XL that predicts words."""

    config_class = TransfoXLConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    # The published checkpoint holds the frequencies of the sines, which are not weights.
    _keys_to_ignore_on_load_unexpected = (r"pos_emb\.inv_freq",)

    def __init__(self, config: TransfoXLConfig) -> None:
        config.check()
        super().__init__(config)
        self.transformer = TransfoXLModel(config)
        self.crit = AdaptiveSoftmax(config.vocab_size, config.cutoffs, config.d_embed, config.d_model, config.div_val)
        tied, embeddings = {}, "transformer.word_emb"
        for cluster, shared in enumerate(config.tie_projs or []):
            if config.tie_word_embeddings:
                tied[f"crit.out_layers.{cluster}.weight"] = f"{embeddings}.emb_layers.{cluster}.weight"
            if shared:
                tied[f"crit.out_projs.{cluster}"] = f"{embeddings}.emb_projs.{cluster}"
        self._tied_weights_keys = tied
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
    ) -> TransfoXLOutput:
        """Read the texts of the rows, ``int64 [rows, time]``, and predict each word after the first.

        With a cache of the words before it, read one word of each row, at its ``position_ids [rows, 1]``.
        """
        if past_key_values is not None and attention_mask is not None:
            width = attention_mask.shape[-1]
            return TransfoXLOutput(hidden=self.transformer(input_ids, position_ids, past_key_values, width))
        hidden, targets = self.transformer(input_ids), input_ids[:, 1:]
        real = targets >= 0 if attention_mask is None else attention_mask[:, 1:] > 0
        nats = self.crit.nats(hidden[:, :-1][real], targets[real])
        return TransfoXLOutput(losses=nats.new_zeros(targets.shape).masked_scatter(real, nats))

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of all clusters."""
        return self.transformer.word_emb

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return which weights are tied to which."""
        return dict(self._tied_weights_keys)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        for name, weights in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm) and name == "weight":
                initialization.normal_(weights, mean=1.0, std=self.config.init_std)
            elif name in ("bias", "cluster_bias"):
                initialization.zeros_(weights)
            else:
                projection = isinstance(module, nn.ParameterList)
                initialization.normal_(weights, std=self.config.proj_init_std if projection else self.config.init_std)


class TransfoXLModel(nn.Module):
    """All but the softmax."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.vocab_size, config.cutoffs, config.d_embed, config.d_model, config.div_val
        self.word_emb = AdaptiveEmbedding(*sizes)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TransfoXLLayer(config) for _ in range(config.n_layer))

    def forward(
        self, words: Tensor, positions: Tensor | None = None, cache: Cache | None = None, width: int = 0
    ) -> Tensor:
        """Return the last hidden states ``[rows, time, d_model]`` for ``int64 [rows, time]``.

        With a ``cache`` of ``width`` positions, the words stand at ``positions [rows, time]`` of their texts.
        """
        hidden = self.drop(self.word_emb(words))
        seen = torch.arange(width or words.shape[1], device=words.device)
        sines = self.drop(self.sines(seen, hidden.dtype))
        distances = (seen[None] if positions is None else positions)[..., None] - seen  # [rows or 1, time, seen]
        unseen = (distances < 0) | (distances >= self.config.window)
        distances = distances.clamp(min=0)
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, sines, distances, unseen, None if cache is None else cache.layers[number])
        last: Tensor = self.drop(hidden)
        return last

    def sines(self, distances: Tensor, dtype: torch.dtype) -> Tensor:
        """Return R of section 3.3 for distances ``int64 [seen]``: sines, then cosines, ``[seen, d_model]``.

        Frequencies are computed in float32: in bf16, far distances would be one.
        """
        wide = torch.promote_types(dtype, torch.float32)
        if self.config.clamp_len > 0:
            distances = distances.clamp(max=self.config.clamp_len)
        halves = torch.arange(0, self.config.d_model, 2, dtype=wide, device=distances.device)
        angles = distances[:, None] / 10000 ** (halves / self.config.d_model)
        return torch.cat([angles.sin(), angles.cos()], dim=1).to(dtype)


class TransfoXLLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """Attention, then a feed-forward layer, each with a residual connection."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.dec_attn = RelativeAttention(config)
        self.pos_ff = FeedForward(config)

    def forward(self, *inputs: Any) -> Tensor:
        """Return ``[rows, time, d_model]``; see ``RelativeAttention.forward``."""
        output: Tensor = self.pos_ff(self.dec_attn(*inputs))
        return output


class RelativeAttention(nn.Module):
    """Attention to words by their content and their distance (section 3.3).

    Weights are named as published: ``qkv_net`` makes queries, keys and values (W_q, W_k,E, W_v), ``r_net`` the keys of
    distances (W_k,R), ``r_w_bias`` is u and ``r_r_bias`` is v.
    """

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.n_head, self.d_head = config.n_head, config.d_head
        self.scale = 1 / math.sqrt(config.d_head)
        width = config.n_head * config.d_head
        self.qkv_net = nn.Linear(config.d_model, 3 * width, bias=False)
        self.r_net = nn.Linear(config.d_model, width, bias=False)
        self.o_net = nn.Linear(width, config.d_model, bias=False)
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.r_w_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
        self.r_r_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
        self.drop = nn.Dropout(config.dropout)
        self.dropatt = config.dropatt

    def forward(
        self, hidden: Tensor, sines: Tensor, distances: Tensor, unseen: Tensor, cache: CacheLayerMixin | None
    ) -> Tensor:
        """Attend to the text, and return ``[rows, time, d_model]``.

        ``sines`` are ``[seen, d_model]``, distance 0 first. ``distances`` from each word to those that it may see, and
        those ``unseen``, are ``[rows or 1, time, seen]``. A ``cache`` keeps keys and values, and has those before.
        """
        parts = self.qkv_net(hidden).unflatten(-1, (3, self.n_head, self.d_head)).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts.unbind()  # [rows, heads, time, d_head]
        if cache is not None:
            keys, values = cache.update(keys, values)
        distance_keys = self.r_net(sines).unflatten(-1, (self.n_head, self.d_head)).permute(1, 2, 0)
        by_distance = (queries + self.r_r_bias[:, None]) @ distance_keys  # terms (b) and (d)
        by_position = self.scale * by_distance.gather(-1, distances[:, None].expand_as(by_distance))
        found = functional.scaled_dot_product_attention(  # terms (a) and (c)
            queries + self.r_w_bias[:, None],
            keys,
            values,
            attn_mask=by_position.masked_fill(unseen[:, None], -torch.inf),
            dropout_p=self.dropatt if self.training else 0.0,
            scale=self.scale,
        )
        output: Tensor = self.layer_norm(hidden + self.drop(self.o_net(found.transpose(1, 2).flatten(-2))))
        return output


class FeedForward(nn.Module):
    """Two linear layers at each position."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.CoreNet = nn.Sequential(
            nn.Linear(config.d_model, config.d_inner),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.d_inner, config.d_model),
            nn.Dropout(config.dropout),
        )
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ``[rows, time, d_model]``."""
        output: Tensor = self.layer_norm(hidden + self.CoreNet(hidden))
        return output


AutoConfig.register(TransfoXLConfig.model_type, TransfoXLConfig, exist_ok=True)
AutoModelForCausalLM.register(TransfoXLConfig, TransfoXLLMHeadModel, exist_ok=True)
