"""The configuration of a Transformer-XL."""

from __future__ import annotations

from dataclasses import field
from itertools import pairwise
from typing import Any, ClassVar

from transformers import PretrainedConfig

from kdcli.api import DataError


class TransfoXLConfig(PretrainedConfig):  # type: ignore[misc]
    """The configuration, with the keys and the defaults of the published ``config.json`` of ``transfo-xl-wt103``.

    Attributes:
        cutoffs: The first word of each cluster of the adaptive softmax but the first; none for a plain softmax.
        div_val: Embeddings of cluster ``i`` are ``d_embed // div_val**i`` wide; with 1 all words share one table.
        pre_lnorm: Normalise the input of a layer, not its output.
        mem_len: Positions of earlier segments that a layer remembers.
        clamp_len: Greater distances count as this one; 0 or less = no limit.
        same_length: Each word sees ``mem_len`` positions, itself included, however long the segment is.
        tie_projs: For each cluster, whether softmax and embeddings share a projection; by default all but the first.
        untie_r: Whether each layer has its own biases ``u`` and ``v``.
        dropatt: Dropout of attention weights; ``dropout`` is that of embeddings, distances and outputs of layers.
    """

    model_type = "transfo-xl"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["mems"]
    attribute_map: ClassVar[dict[str, str]] = {
        "n_token": "vocab_size",
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 267735
    cutoffs: list[int] = field(default_factory=lambda: [20000, 40000, 200000])
    d_model: int = 1024
    d_embed: int = 1024
    n_head: int = 16
    d_head: int = 64
    d_inner: int = 4096
    div_val: int = 4
    pre_lnorm: bool = False
    n_layer: int = 18
    mem_len: int = 1600
    clamp_len: int = 1000
    same_length: bool = True
    proj_share_all_but_first: bool = True
    tie_projs: list[bool] | None = None
    tie_word_embeddings: bool = True
    untie_r: bool = True
    dropout: float = 0.1
    dropatt: float = 0.0
    attn_type: int = 0
    init: str = "normal"
    init_range: float = 0.01
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
        """Check the values that the model depends on.

        Raises:
            DataError: There is no such model.
        """
        clusters, projections = len(self.cutoffs) + 1, len(self.tie_projs or [])
        rising = all(one < other for one, other in pairwise([0, *self.cutoffs, self.vocab_size]))
        cutoffs = f"the cutoffs {self.cutoffs} do not rise from 1 on to less than {self.vocab_size}, the vocabulary"
        narrowest = self.d_embed // self.div_val ** (clusters - 1) if self.div_val > 0 else 0
        narrow = f"with d_embed {self.d_embed} and div_val {self.div_val} the last cluster has no width"
        blind = "with same_length and mem_len 0, a word sees nothing, not even itself"
        for sound, what, hint in (
            (self.attn_type == 0, f"attn_type is {self.attn_type}", "0, the paper's, is the only one"),
            (rising, cutoffs, "name fewer or smaller ones"),
            (projections == clusters, f"tie_projs has {projections} values for {clusters} clusters", "one for each"),
            (narrowest > 0, narrow, "take a greater d_embed, a smaller div_val, or fewer cutoffs"),
            (self.d_model % 2 == 0, f"d_model is {self.d_model}", "take an even one: half of it are sines"),
            (self.mem_len >= 0, f"mem_len is {self.mem_len}", "0 remembers nothing"),
            (self.mem_len != 0 or not self.same_length, blind, "set same_length to false, or mem_len to 1 or more"),
            (self.init in ("normal", "uniform"), f"init is {self.init!r}", "normal or uniform"),
        ):
            if not sound:
                raise DataError(f"there is no such Transformer-XL: {what}", hint=hint)
