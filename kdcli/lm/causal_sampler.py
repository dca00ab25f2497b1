"""A causal language model as a generator: prefixes, texts and bits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdcli.api import Corpus, DataError, GeneratorSettings, Part, Reporter, Samples
from kdcli.lm.causal import CausalDecoder
from kdcli.lm.drawing import draw, uniforms_of
from kdcli.lm.fit import Nats, nats, text_nats
from kdcli.lm.sampling import Decoder, sample
from kdcli.lm.texts import TokenTexts
from kdcli.models.memory import fitting

_AUTO = {"cpu": 256, "cuda": 4096}
"""Texts at once with ``batch_size = "auto"``, before memory does not suffice; more gain nothing."""
UNFINISHED = "no end within max_length tokens"
BROKEN = "broken characters"
"""A byte-level vocabulary can also spell what is no UTF-8; decoded, it has U+FFFD."""


class CausalSampler:
    """A fine-tuned causal language model that samples texts (Tang, Lu, Lin 2019, "prefix sampler").

    Args:
        model: Any Hugging Face causal language model, on its device.
        tokenizer: Its tokenizer.
        settings: How to sample.
        max_length: The longest text in tokens, its end included.
        reporter: Told when memory does not suffice.
        decoder: What goes on with texts; by default that of any Hugging Face model, which is checked first.
        ends: At which end-of-text token a text is over.
        nats: What makes nats of the model's output.

    Raises:
        DataError: The model cannot be sampled from in a batch that stays full.
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
        nats: Nats = nats,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.reporter = reporter
        self.decoder = decoder or _checked(model, settings, max_length)
        self.ends = ends
        self.nats = nats
        self.rows = _AUTO.get(model.device.type, 512) if settings.batch_size == "auto" else settings.batch_size

    def starts(self, corpus: Corpus) -> dict[str, Any]:
        """Count the first tokens of the training texts: ``tokens``, ``counts`` and, to be read, ``texts``.

        The end of a text is none of them, nor is what stands for unknown words.

        Raises:
            DataError: There is none.
        """
        encoded = TokenTexts(corpus.train, self.tokenizer, self.max_length)
        firsts = Counter(encoded.first().tolist())
        for token in {self.tokenizer.eos_token_id, self.tokenizer.unk_token_id}:
            firsts.pop(token, None)
        if not firsts:
            what = "no training text starts with what the model knows"
            raise DataError(what, hint="fine-tune a model that knows the words of these texts")
        counted = firsts.most_common()
        tokens = [token for token, _ in counted]
        counts = [count for _, count in counted]
        return {"tokens": tokens, "counts": counts, "texts": self._decode([[token] for token in tokens])}

    def sample(self, starts: Mapping[str, Any], part: Part) -> Samples:
        """Draw the texts of one part, each from a random first token on, to its end.

        Raises:
            DataError: The prefixes are not this model's.
            KdError: Memory does not suffice.
        """
        tokens, shares = self._prefixes(starts)
        uniforms = uniforms_of(part, self.max_length)
        # A uniform just below 1 may come to the end of all shares by rounding.
        chosen = np.searchsorted(shares[:-1], uniforms[:, 0] * shares[-1], side="right")
        texts = self._sample(torch.from_numpy(tokens[chosen]), torch.from_numpy(uniforms)).cpu().numpy()
        ends = (texts == self.tokenizer.eos_token_id).cumsum(axis=1) == self.ends
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

    def _prefixes(self, starts: Mapping[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the first tokens, and their counts summed up."""
        try:
            tokens, counts = np.array(starts["tokens"], np.int64), np.array(starts["counts"], np.float64)
            ours = starts["texts"] == self._decode(tokens[:, None])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            ours = False
        if not ours or len(tokens) != len(counts) or not counts.sum() > 0 or counts.min() < 0:
            what = "the prefixes are not what this generator has counted"
            raise DataError(what, hint="make them again: --only prefixes --force")
        return tokens, counts.cumsum()

    def _decode(self, tokens: Sequence[Any] | NDArray[np.int64]) -> list[str]:
        if not len(tokens):
            return []
        texts: list[str] = self.tokenizer.batch_decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def _sample(self, first: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        uniforms = uniforms.float() if self.model.device.type == "mps" else uniforms
        end = self.tokenizer.eos_token_id

        def at_once(rows: int) -> torch.Tensor:
            return sample(self.decoder, first, uniforms, end=end, rows=rows, ends=self.ends)

        texts, self.rows = fitting(at_once, self.rows, len(first), self.reporter)
        return texts


def _checked(model: Any, settings: GeneratorSettings, max_length: int) -> Decoder:
    drawing = partial(draw, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
    decoder = CausalDecoder(model, drawing)
    decoder.check(max_length)
    return decoder
