"""Any masked language model of Hugging Face as a generator: it draws some words of a text anew (Tang, Lu, Lin 2019)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from torch import Tensor

from kdcli.api import Corpus, DataError, GeneratorSettings, Part, Reporter, Samples
from kdcli.lm.masked_texts import MaskedTexts
from kdcli.lm.sampling import draw, part_uniforms
from kdcli.lm.texts import IGNORED
from kdcli.models.memory import halve_until_it_fits

_AUTO = {"cpu": 64, "cuda": 1024}
"""Texts at once with ``batch_size = "auto"``."""
_MARKS = ("##", "Ġ", "▁")
"""Marks at the start of a token that continues a word (WordPiece) or starts one (BPE and Unigram)."""


class MaskedSampler:
    """A fine-tuned masked language model that fills masked words: the "masked LM" of Tang, Lu, Lin 2019.

    The masked tokens of a text are drawn from left to right, each with those before it filled in and those behind it
    still masked. Each takes a pass (the k-th masks of all texts of a batch share one); drawn all at once, the tokens
    would not depend on each other, and the pieces of a word would not fit. A token that starts a word is replaced by
    one that does, and a token inside a word by one inside. Special tokens are never drawn.

    ``share`` of the words is masked; texts have at most ``max_length`` tokens. There are no ``bits``: the probabilities
    of single tokens, each given all others, do not make a probability of the text.
    """

    def __init__(
        self, model: Any, tokenizer: Any, settings: GeneratorSettings, max_length: int, share: float, reporter: Reporter
    ) -> None:
        check_masked(model, max_length, tokenizer.mask_token_id)
        self.model = model
        self.tokenizer = tokenizer
        self.kind = settings.kind
        self.max_length = max_length
        self.share = share
        self.reporter = reporter
        self.draw = partial(draw, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
        self.rows = _AUTO.get(model.device.type, 64) if settings.batch_size == "auto" else settings.batch_size
        tables = _tables(tokenizer, model.config.get_text_config().vocab_size)
        self.marked, self.allowed = (table.to(model.device) for table in tables)

    def prefixes(self, corpus: Corpus) -> dict[str, Any]:
        """Return the training ``texts`` to mask: those that have a word and fit into ``max_length``."""
        read = MaskedTexts(corpus.train, self.tokenizer, self.max_length)
        texts = [text for text, kept in zip(corpus.train, read.whole & (read.words > 0), strict=True) if kept]
        if not texts:
            what = f"no training text has a word and at most {self.max_length} tokens"
            raise DataError(what, hint="allow longer ones: max_length")
        if left := len(corpus.train) - len(texts):
            what = f"{left} training texts have more than {self.max_length} tokens, or no word"
            self.reporter.warn(f"{what}: no samples are drawn from them")
        return {"texts": texts}

    def sample(self, prefixes: Mapping[str, Any], part: Part) -> Samples:
        """Draw the texts of one part: each is a random training text with other words for some of its own."""
        texts, tabs = prefixes.get("texts"), int(self.kind == "pair")
        valid = isinstance(texts, list) and all(isinstance(text, str) and text.count("\t") == tabs for text in texts)
        if not texts or not valid:
            hint = "make them again: --only prefixes --force"
            raise DataError("these are not the prefixes of this generator", hint=hint)
        uniforms, length = part_uniforms(part, 2 + 2 * self.max_length), self.max_length
        chosen = [texts[int(uniform * len(texts))] for uniform in uniforms[:, 0]]
        drawn = MaskedTexts(chosen, self.tokenizer, length, share=self.share)
        drawn.mask(uniforms[:, 1], uniforms[:, 2 : 2 + length][np.arange(length) < drawn.words[:, None]])
        fill = partial(self._fill, drawn, torch.from_numpy(uniforms[:, 2 + length :]))
        tokens, self.rows = halve_until_it_fits(fill, self.rows, count=part.count, reporter=self.reporter)
        return Samples(drawn.filled(tokens), {})

    @torch.inference_mode()
    def _fill(self, texts: MaskedTexts, uniforms: Tensor, at_once: int) -> NDArray[np.int32]:
        """Return the tokens of all texts, the masked ones drawn; ``uniforms`` are ``[texts, time]``."""
        tokens, order = texts.tokens.copy(), np.argsort(-texts.lengths, kind="stable")
        uniforms = uniforms.float() if self.model.device.type == "mps" else uniforms
        for first in range(0, len(order), at_once):
            rows = order[first : first + at_once].tolist()
            batch = {name: values.to(self.model.device) for name, values in texts.batch(rows).items()}
            labels, random = batch.pop("labels"), uniforms[rows].to(self.model.device)
            masked = labels != IGNORED
            turn = masked.cumsum(dim=1) * masked
            for number in range(1, int(turn.max()) + 1):
                some, columns = (turn == number).nonzero(as_tuple=True)
                logits = self._logits({name: values[some] for name, values in batch.items()}, columns)
                banned = ~self.allowed[self.marked[labels[some, columns]]]
                drawn = self.draw(logits.float().masked_fill(banned, -torch.inf), random[some, columns])
                batch["input_ids"][some, columns] = drawn
            used = batch["attention_mask"].bool()
            spans = [np.arange(*texts.rows.offsets[row : row + 2]) for row in rows]
            tokens[np.concatenate(spans)] = batch["input_ids"][used].cpu().numpy()
        return tokens

    def _logits(self, inputs: Mapping[str, Tensor], columns: Tensor) -> Tensor:
        """Return the logits ``[rows, vocabulary]`` of one token a row; those of all tokens would be the most work."""
        rows = torch.arange(len(columns), device=columns.device)
        head = self.model.get_output_embeddings()
        with head.register_forward_pre_hook(lambda _, hidden: (hidden[0][rows, columns],)):
            logits: Tensor = self.model(**inputs).logits
        return logits if logits.dim() == 2 else logits[rows, columns]


@torch.inference_mode()
def check_masked(model: Any, length: int, mask: int) -> None:
    """Make sure that a model fills masks in texts of ``length`` tokens.

    Raises:
        DataError: It reads fewer, or does not know this mask token; or its logits are not finite.
    """
    name, hint = type(model).__name__, "a shorter max_length, or the model copied again, its tokenizer with it"
    try:
        logits = model(input_ids=torch.full((1, length), mask, device=model.device)).logits
    except (IndexError, RuntimeError) as error:
        if should_reduce_batch_size(error):
            raise
        raise DataError(f"{name} does not read {length} mask tokens", hint=f"try {hint}") from error
    if not logits.isfinite().all():
        what = f"{name} cannot be sampled from: its logits are not finite in {model.dtype}"
        raise DataError(what, hint="sample in fp32, or fine-tune it again")


def _tables(tokenizer: Any, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Return which tokens are marked, ``int64 [vocabulary]``, and which may replace each kind, ``bool [2, ...]``."""
    special = {*tokenizer.all_special_ids}
    special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    marked, plain = torch.zeros(vocabulary, dtype=torch.long), torch.zeros(vocabulary, dtype=torch.bool)
    for token, number in tokenizer.get_vocab().items():
        if number < vocabulary:
            text = tokenizer.decode([number]).strip()
            marked[number] = token.startswith(_MARKS)
            unwritten = not text.isprintable() or "\ufffd" in text or re.fullmatch(r"\[unused\d+\]", text)
            plain[number] = bool(text) and number not in special and not unwritten
    if not plain.any():
        raise DataError("the tokenizer has no tokens to draw", hint="copy the model again, its tokenizer with it")
    kinds = torch.stack([plain & (marked == kind) for kind in (0, 1)])
    return marked, torch.where(kinds.any(dim=1, keepdim=True), kinds, plain)
