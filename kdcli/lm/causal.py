"""Any causal language model of Hugging Face as a generator: prefixes, texts and bits (Tang, Lu, Lin 2019)."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from kdcli.api import Corpus, DataError, GeneratorSettings, Part, Reporter, Samples
from kdcli.lm.sampling import Decoder, draw, part_uniforms, sample
from kdcli.lm.texts import Nats, TokenTexts, text_nats, token_nats
from kdcli.models.device import halve_until_it_fits

Draw = Callable[[Tensor, Tensor], Tensor]
"""Draws tokens ``[rows]`` from logits ``[rows, vocabulary]`` and uniforms ``[rows]``."""
UNFINISHED = "no end within max_length tokens"
BROKEN = "broken characters"
"""A byte-level vocabulary can spell bytes that are not UTF-8, which are decoded as U+FFFD."""

_AUTO = {"cpu": 256, "cuda": 4096}  # texts at once with ``batch_size = "auto"``; more gain nothing
_CHECKED = 3
_FAR_OFF = {torch.float32: 0.02, torch.float16: 0.1, torch.bfloat16: 0.3}
"""More than rounding can do to logits, in their own standard deviations: GPT-2's are around -100 in bf16."""


class CausalSampler:
    """A fine-tuned causal language model that samples texts: the "prefix sampler" of Tang, Lu, Lin 2019.

    The longest text has ``max_length`` tokens, its end included. ``decoder`` continues texts: by default a
    ``CausalDecoder``, which is checked first. Their end-of-text token number ``ends`` closes texts. ``nats`` turns the
    model's output into nats.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: GeneratorSettings,
        max_length: int,
        reporter: Reporter,
        *,
        decoder: Decoder | None = None,
        ends: int = 1,
        nats: Nats = token_nats,
    ) -> None:
        self.model, self.tokenizer, self.max_length, self.reporter = model, tokenizer, max_length, reporter
        if decoder is None:
            draw_one = partial(draw, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
            decoder = CausalDecoder(model, draw_one)
            decoder.check(max_length)
        self.decoder, self.ends, self.nats = decoder, ends, nats
        self.rows = _AUTO.get(model.device.type, 512) if settings.batch_size == "auto" else settings.batch_size

    def prefixes(self, corpus: Corpus) -> dict[str, Any]:
        """Count the first tokens of the training texts: ``tokens``, ``counts`` and, for people, ``texts``.

        The end-of-text token and the token of unknown words do not count.
        """
        encoded = TokenTexts(corpus.train, self.tokenizer, self.max_length)
        firsts = Counter(encoded.tokens[encoded.rows.offsets[:-1]].tolist())
        for token in {self.tokenizer.eos_token_id, self.tokenizer.unk_token_id}:
            firsts.pop(token, None)
        if not firsts:
            what = "no training text starts with a token that the model knows"
            raise DataError(what, hint="fine-tune a model that knows the words of these texts")
        tokens, counts = map(list, zip(*firsts.most_common(), strict=True))
        return {"tokens": tokens, "counts": counts, "texts": self._decode([[token] for token in tokens])}

    def sample(self, prefixes: Mapping[str, Any], part: Part) -> Samples:
        """Draw the texts of one part, each from a random first token on, to its end."""
        tokens, shares = self._cumulative(prefixes)
        uniforms = part_uniforms(part, self.max_length)
        # A uniform just below 1 may come to the end of all shares by rounding.
        chosen = np.searchsorted(shares[:-1], uniforms[:, 0] * shares[-1], side="right")
        first, end = torch.from_numpy(tokens[chosen]), self.tokenizer.eos_token_id
        later = torch.from_numpy(uniforms).to(torch.float32 if self.model.device.type == "mps" else torch.float64)

        def run(rows: int) -> Tensor:
            return sample(self.decoder, first, later, end=end, rows=rows, ends=self.ends)

        drawn, self.rows = halve_until_it_fits(run, self.rows, count=len(first), reporter=self.reporter)
        texts: NDArray[np.int64] = drawn.cpu().numpy()
        ends = (texts == end).cumsum(axis=1) == self.ends
        ended = ends.any(axis=1)
        decoded = self._decode([row[: end.argmax()] for row, end in zip(texts[ended], ends[ended], strict=True)])
        sound = [text for text in decoded if "\ufffd" not in text]
        return Samples(sound, {UNFINISHED: int((~ended).sum()), BROKEN: len(decoded) - len(sound)})

    def bits(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the bits of each text, ``float64 [texts]``: of all tokens but the first, the end included.

        A text of more than ``max_length`` tokens is judged by its beginning: its other characters take as many.
        """
        encoded = TokenTexts(texts, self.tokenizer, self.max_length)
        beyond = [len(text) / max(len(read), 1) for text, read in zip(texts, encoded.read(), strict=True)]
        return text_nats(self.model, encoded, nats=self.nats) / math.log(2) * np.array(beyond, np.float64)

    def _cumulative(self, prefixes: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the first tokens and their cumulative counts."""
        try:
            tokens, counts = np.array(prefixes["tokens"], np.int64), np.array(prefixes["counts"], np.float64)
            own = prefixes["texts"] == self._decode(tokens[:, None])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            own = False
        if not own or len(tokens) != len(counts) or not counts.sum() > 0 or counts.min() < 0:
            hint = "count them again: --only prefixes --force"
            raise DataError("these are not the prefixes of this generator", hint=hint)
        return tokens, counts.cumsum()

    def _decode(self, tokens: Sequence[Any] | NDArray[np.int64]) -> list[str]:
        how = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return list(self.tokenizer.batch_decode(tokens, **how)) if len(tokens) else []


class CausalDecoder:
    """Any ``AutoModelForCausalLM`` with a preallocated key-value cache, each row at a position of its own.

    ``read`` takes what ``draw`` draws from out of the model's output: ``[rows, 1, ...]``, by default the logits.
    """

    def __init__(self, model: Any, draw: Draw = draw, read: Callable[[Any], Tensor] = lambda out: out.logits) -> None:
        self.model, self.draw, self.read = model, draw, read
        self.open(0, 0)

    @property
    def device(self) -> torch.device:
        """See ``Decoder``."""
        return torch.device(self.model.device)

    def open(self, rows: int, length: int) -> None:
        """See ``Decoder``; the first step reserves the memory."""
        # Where the next keys and values belong: all layers share it.
        self.current = SimpleNamespace(rows=None, positions=None, width=0)
        layers = self.model.config.get_text_config().num_hidden_layers
        self.cache = Cache(layers=[_RowLayer(self.current, length) for _ in range(layers)])

    def step(self, tokens: Tensor, positions: Tensor, width: int, uniforms: Tensor) -> Tensor:
        """See ``Decoder``."""
        return self.draw(self.logits(tokens, positions, width), uniforms)

    def logits(self, tokens: Tensor, positions: Tensor, width: int) -> Tensor:
        """Read a token of each row; return the logits ``[rows, vocabulary]`` of the next."""
        visible = torch.arange(width, device=tokens.device) <= positions[:, None]
        mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=tokens.device)
        mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)
        self.current.rows = torch.arange(len(positions), device=positions.device)
        self.current.positions, self.current.width = positions, width
        inputs = {"input_ids": tokens[:, None], "position_ids": positions[:, None]}
        inputs["attention_mask"] = mask[:, None, None]  # [rows, 1, 1, width]
        return self.read(self.model(**inputs, past_key_values=self.cache, use_cache=True))[:, -1]

    def keep(self, rows: Tensor) -> None:
        """See ``Decoder``."""
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]

    @torch.inference_mode()
    def check(self, length: int) -> None:
        """Make sure that rows at positions of their own get the logits of whole texts, up to ``length`` tokens.

        A model that ignores ``position_ids`` or the mask would sample from another distribution: a ``DataError``.
        """
        what, hint = f"{type(self.model).__name__} cannot be sampled from", "use a model such as gpt2, Llama or Qwen"
        try:
            gap = self._gap(length - 1)
        except Exception as error:  # a model without such a cache may raise anything
            if should_reduce_batch_size(error):
                raise
            raise DataError(f"{what}: it does not accept a position for each row of a batch", hint=hint) from error
        finally:
            self.open(0, 0)
        dtype = self.model.dtype
        if math.isnan(gap):
            raise DataError(f"{what}: its logits are not finite in {dtype}", hint="sample in fp32, or train it again")
        if gap > _FAR_OFF.get(dtype, 0.02):
            hint += "; if it looks back a few tokens only, allow fewer (max_length)"
            raise DataError(f"{what}: its logits change when the rows of a batch differ in position", hint=hint)

    def _gap(self, width: int) -> float:
        """Return the largest distance to the logits of whole texts, in standard deviations of a row's logits."""
        random = torch.Generator().manual_seed(0)
        vocabulary = self.model.config.get_text_config().vocab_size
        texts = torch.randint(vocabulary, (_CHECKED, width), generator=random).to(self.device)
        whole = self.model(input_ids=texts, past_key_values=DynamicCache(), use_cache=True)
        self.open(_CHECKED, width)
        # The cache of whole texts: each row holds tokens behind its position, which it must not see.
        for own, other in zip(self.cache.layers, whole.past_key_values.layers, strict=True):
            own.keys, own.values, own.is_initialized = other.keys.clone(), other.values.clone(), True
        rows = torch.arange(_CHECKED, device=self.device)
        positions = torch.linspace(0, width - 1, _CHECKED, device=self.device).long()
        gaps = []
        for now in (positions, (positions + 1).clamp(max=width - 1)):  # the second step reads what the first one wrote
            expected = whole.logits[rows, now].float()
            gap = self.logits(texts[rows, now], now, width).float() - expected
            spread = expected.std(1).clamp(min=1e-6)  # a head may begin with zeros
            gaps.append((gap - gap.mean(1, keepdim=True)).std(1) / spread)
        return float(torch.stack(gaps).max())


class _RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, ``[rows, heads, length, head width]``, each row written at its own position."""

    def __init__(self, current: SimpleNamespace, length: int) -> None:
        super().__init__()
        self.current, self.length = current, length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve the memory for the longest texts."""
        shape = (*key_states.shape[:2], self.length)
        self.keys = key_states.new_zeros(*shape, key_states.shape[-1])
        self.values = value_states.new_zeros(*shape, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one position of each row, ``[rows, heads, 1, width]``; return all positions up to the furthest."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys[self.current.rows, :, self.current.positions] = key_states[:, :, 0]
        self.values[self.current.rows, :, self.current.positions] = value_states[:, :, 0]
        return self.keys[:, :, : self.current.width], self.values[:, :, : self.current.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of positions, and the first."""
        return self.current.width, 0

    def get_seq_length(self) -> int:
        """Return the number of positions before the new one."""
        return int(self.current.width) - 1

    def get_max_length(self) -> int:
        """Return the largest number of positions."""
        return self.length
