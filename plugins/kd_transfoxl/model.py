"""A Transformer-XL (Dai et al. 2019, arXiv 1901.02860) with the weight names of ``transfo-xl-wt103``.

The text goes through in segments. A layer sees the hidden states that went into it with the segments before, without
a gradient: the memory (section 3.2). Attention depends on distances, not on positions (section 3.3). Shapes are
``[rows, time, ...]``; a segment sees ``seen`` positions, ``past`` of memory and ``time`` of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, initialization
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput

from kd_transfoxl.adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from kdcli.api import DataError
from kdcli.lm.texts import IGNORED


class TransfoXLConfig(PretrainedConfig):  # type: ignore[misc]
    """The configuration, with the keys and the defaults of the published ``config.json`` of ``transfo-xl-wt103``."""

    model_type = "transfo-xl"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["mems"]
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
    div_val: int = 4  # embeddings of cluster ``i`` are ``d_embed // div_val**i`` wide; with 1 all words share one table
    pre_lnorm: bool = False  # normalise the input of a layer, not its output
    n_layer: int = 18
    mem_len: int = 1600  # positions of earlier segments that a layer remembers
    clamp_len: int = 1000  # greater distances count as this one; 0 or less = no limit
    same_length: bool = True  # each word sees ``mem_len`` positions, itself included, however long the segment is
    proj_share_all_but_first: bool = True
    tie_projs: list[bool] | None = None  # whether softmax and embeddings of a cluster share a projection
    tie_word_embeddings: bool = True
    untie_r: bool = True  # whether each layer has its own biases ``u`` and ``v``
    dropout: float = 0.1  # of embeddings, distances and outputs of layers
    dropatt: float = 0.0  # of attention weights
    attn_type: int = 0
    init_std: float = 0.02
    proj_init_std: float = 0.01
    layer_norm_epsilon: float = 1e-5
    eos_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        self.cutoffs = list(self.cutoffs)
        if self.tie_projs is None:
            self.tie_projs = [self.proj_share_all_but_first and cluster > 0 for cluster in range(len(self.cutoffs) + 1)]
        super().__post_init__(**kwargs)

    def check(self) -> None:
        """Check the values that the model depends on; one of no model is a ``DataError`` with its key."""
        clusters, projections = len(self.cutoffs) + 1, len(self.tie_projs or [])
        rising = all(one < other for one, other in pairwise([0, *self.cutoffs, self.vocab_size]))
        wide = self.div_val > 0 and self.d_embed // self.div_val ** (clusters - 1) > 0
        for key, sound, must in (
            ("attn_type", self.attn_type == 0, "be 0, the paper's"),
            ("cutoffs", rising, f"rise from 1 on to less than {self.vocab_size}, the vocabulary"),
            ("tie_projs", projections == clusters, f"be {clusters}, one for each cluster"),
            ("d_embed", wide, f"leave the last cluster a width, with div_val {self.div_val}"),
            ("d_model", self.d_model % 2 == 0, "be even: half of it are sines"),
            ("mem_len", self.mem_len >= self.same_length, "be 1 or more with same_length, or 0: a word sees itself"),
        ):
            if not sound:
                what = f"there is no such Transformer-XL: {key} is {getattr(self, key)}, and must {must}"
                raise DataError(what, key=key, hint="change it, or take the published configuration")


@dataclass
class TransfoXLOutput(ModelOutput):  # type: ignore[misc]
    """The output of a segment; ``mems`` are the memory for the next segment, if there is one."""

    loss: Tensor | None = None  # the mean of ``losses``
    losses: Tensor | None = None  # [rows, time - 1], the nats of each word but the first, 0 where the label is ignored
    logits: Tensor | None = None  # [rows, time, vocabulary], log-probabilities of the next word, with ``return_logits``
    mems: tuple[Tensor, ...] | None = None  # for each layer [rows, at most mem_len, d_model]


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
        self._tied_weights_keys = self._ties()
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        mems: Sequence[Tensor] | None = None,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        return_logits: bool = False,
        use_cache: bool = True,
    ) -> TransfoXLOutput:
        """Read a segment of each row's text, ``int64 [rows, time]``, after the memory of the segment before.

        Labels are the words themselves: position ``i`` predicts label ``i + 1``, and -100 is ignored. By default they
        are the words where ``attention_mask`` is not 0, unless logits alone are asked for.
        """
        hidden, memory = self.transformer(input_ids, mems)
        if labels is None and not return_logits:
            labels = input_ids if attention_mask is None else input_ids.masked_fill(attention_mask == 0, IGNORED)
        loss = losses = logits = None
        if labels is not None:
            targets = labels[:, 1:]
            real = targets != IGNORED
            nats = self.crit.nats(hidden[:, :-1][real], targets[real])
            losses = nats.new_zeros(targets.shape).masked_scatter(real, nats)
            loss = nats.sum() / max(len(nats), 1)
        if return_logits:
            logits = self.crit.log_probs(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
        return TransfoXLOutput(loss=loss, losses=losses, logits=logits, mems=memory if use_cache else None)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of all clusters."""
        return self.transformer.word_emb

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return which weights are tied to which."""
        return dict(self._tied_weights_keys)

    def _ties(self) -> dict[str, str]:
        config, ties = self.config, {}
        if config.tie_word_embeddings:
            for cluster in range(len(self.crit.out_layers)):
                ties[f"crit.out_layers.{cluster}.weight"] = f"transformer.word_emb.emb_layers.{cluster}.weight"
        last = len(self.transformer.word_emb.emb_projs) - 1
        for cluster in range(len(self.crit.out_projs)):
            if config.tie_projs[cluster]:
                ties[f"crit.out_projs.{cluster}"] = f"transformer.word_emb.emb_projs.{min(cluster, last)}"
        if not config.untie_r:
            for layer in range(config.n_layer):
                for bias in ("r_w_bias", "r_r_bias"):
                    ties[f"transformer.layers.{layer}.dec_attn.{bias}"] = f"transformer.{bias}"
        return ties

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
        if not config.untie_r:
            self.r_w_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
            self.r_r_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))

    def forward(self, words: Tensor, mems: Sequence[Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Return the last hidden states ``[rows, time, d_model]`` and the new memory, for ``int64 [rows, time]``."""
        past = mems[0].shape[1] if mems else 0
        hidden = self.drop(self.word_emb(words))
        positions = torch.arange(past + words.shape[1], device=words.device)
        sines = self.drop(self.sines(positions.flip(0), hidden.dtype))
        distances = positions[past:, None] - positions  # [time, seen]
        unseen = distances < 0
        if self.config.same_length:
            unseen |= distances >= self.config.mem_len
        remembered = []
        for number, layer in enumerate(self.layers):
            memory, together = mems[number] if mems else None, hidden.detach()
            if memory is not None:
                together = torch.cat([memory, together], dim=1)
            remembered.append(together[:, max(together.shape[1] - self.config.mem_len, 0) :])
            hidden = layer(hidden, sines, unseen, memory)
        return self.drop(hidden), tuple(remembered) if self.config.mem_len else None

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

    def forward(self, hidden: Tensor, sines: Tensor, unseen: Tensor, memory: Tensor | None) -> Tensor:
        """Return ``[rows, time, d_model]``; see ``RelativeAttention.forward``."""
        output: Tensor = self.pos_ff(self.dec_attn(hidden, sines, unseen, memory))
        return output


class RelativeAttention(nn.Module):
    """Attention to words by their content and their distance (section 3.3).

    Weights are named as published: ``qkv_net`` makes queries, keys and values (W_q, W_k,E, W_v), ``r_net`` the keys of
    distances (W_k,R), ``r_w_bias`` is u and ``r_r_bias`` is v.
    """

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.n_head, self.d_head, self.pre_lnorm = config.n_head, config.d_head, config.pre_lnorm
        self.scale = 1 / math.sqrt(config.d_head)
        width = config.n_head * config.d_head
        self.qkv_net = nn.Linear(config.d_model, 3 * width, bias=False)
        self.r_net = nn.Linear(config.d_model, width, bias=False)
        self.o_net = nn.Linear(width, config.d_model, bias=False)
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.r_w_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
        self.r_r_bias = nn.Parameter(torch.empty(config.n_head, config.d_head))
        self.drop = nn.Dropout(config.dropout)
        self.dropatt = nn.Dropout(config.dropatt)

    def forward(self, hidden: Tensor, sines: Tensor, unseen: Tensor, memory: Tensor | None) -> Tensor:
        """Attend to the memory, ``[rows, past, d_model]``, and the segment, and return ``[rows, time, d_model]``.

        ``sines`` are ``[seen, d_model]``, distance 0 last; ``unseen``, ``bool [time, seen]``, hides what is not seen.
        """
        time = hidden.shape[1]
        queries, keys, values = self.heads(hidden if memory is None else torch.cat([memory, hidden], dim=1))
        queries = queries[:, -time:]
        by_word = torch.einsum("bihd,bjhd->bhij", queries + self.r_w_bias, keys)  # terms (a) and (c)
        by_distance = torch.einsum("bihd,jhd->bhij", queries + self.r_r_bias, self.distance_keys(sines))  # (b), (d)
        scores = self.scale * (by_word + shifted(by_distance))  # [rows, heads, time, seen]
        weights = self.dropatt(scores.masked_fill(unseen, -torch.inf).softmax(dim=-1))
        return self.out(hidden, torch.einsum("bhij,bjhd->bihd", weights, values))

    def heads(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each ``[rows, time, heads, d_head]``."""
        normal = self.layer_norm(hidden) if self.pre_lnorm else hidden
        queries, keys, values = self.qkv_net(normal).unflatten(-1, (3, self.n_head, self.d_head)).unbind(-3)
        return queries, keys, values

    def distance_keys(self, sines: Tensor) -> Tensor:
        """Return the keys of distances, ``[seen, heads, d_head]``."""
        keys: Tensor = self.r_net(sines).unflatten(-1, (self.n_head, self.d_head))
        return keys

    def out(self, hidden: Tensor, values: Tensor) -> Tensor:
        """Add the values of all heads, ``[rows, time, heads, d_head]``, to the hidden states."""
        output: Tensor = hidden + self.drop(self.o_net(values.flatten(-2)))
        return output if self.pre_lnorm else self.layer_norm(output)


def shifted(scores: Tensor) -> Tensor:
    """Bring scores, ``[..., time, seen]``, from the order of distances (0 last) to that of positions (appendix B).

    The last row has distance 0 in its last column, where it belongs; the row before has it one column too far to the
    right, and so on. Read end to end, each row has to begin one earlier than ``seen`` after the one before. Columns
    after the row's own position hold arbitrary values.
    """
    time, seen = scores.shape[-2:]
    return scores.flatten(-2)[..., time - 1 :].unfold(-1, seen, max(seen - 1, 1))


class FeedForward(nn.Module):
    """Two linear layers at each position."""

    def __init__(self, config: TransfoXLConfig) -> None:
        super().__init__()
        self.pre_lnorm = config.pre_lnorm
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
        output: Tensor = hidden + self.CoreNet(self.layer_norm(hidden) if self.pre_lnorm else hidden)
        return output if self.pre_lnorm else self.layer_norm(output)


AutoConfig.register(TransfoXLConfig.model_type, TransfoXLConfig, exist_ok=True)
AutoModelForCausalLM.register(TransfoXLConfig, TransfoXLLMHeadModel, exist_ok=True)
