"""Any masked language model of Hugging Face as a generator: it draws some words of a text anew (Tang, Lu, Lin 2019)."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kdcli.api import Corpus, DataError, GeneratorSettings, Part, Reporter, Samples
from kdcli.lm.sampling import draw, part_uniforms
from kdcli.lm.texts import IGNORED, TokenRows
from kdcli.models.device import halve_until_it_fits

_AUTO = {"cpu": 64, "cuda": 1024}  # texts at once with ``batch_size = "auto"``
_MARKS = ("##", "Ġ", "▁")
"""Marks at the start of a token that continues a word (WordPiece) or starts one (BPE and Unigram)."""


class MaskedTexts:
    """Texts as tokens, with a share of the words masked: whole words, all their tokens.

    The tokenizer defines words: BERT's end at white space and at punctuation. All tokens of a masked word become the
    mask token; there are none of BERT's random and unchanged ones, which prepare a model for texts without masks.

    The texts of a pair have a tab between them, and are encoded as the tokenizer (a fast one) encodes two. With a seed,
    masks are drawn anew in each epoch. At least one word of each text is masked.

    Attributes:
        whole: ``bool [texts]``, whether a text is read to its end, at most ``max_length`` tokens.
        tokens: ``int32 [tokens]``, those of all texts, one after the other, before any is masked.
        words: ``int64 [texts]``, the words of each text.
        rows: The model's inputs and ``labels``, special tokens included, padded on the right.
    """

    def __init__(
        self, texts: Sequence[str], tokenizer: Any, max_length: int, seed: int | None = None, *, share: float = 0.2
    ) -> None:
        self.texts, self.tokenizer, self.max_length = texts, tokenizer, max_length
        self.seed, self.share = seed, share
        self._read()
        self.start(0)

    def start(self, epoch: int) -> None:
        """Mask the texts as they are learned in this epoch."""
        random = np.random.default_rng((self.seed or 0, epoch if self.seed is not None else 0))
        self.mask(random.random(len(self.words)), random.random(int(self.words.sum())))

    def mask(self, rounding: NDArray[np.float64], keys: NDArray[np.float64]) -> None:
        """Mask the words with the lowest keys of each text.

        Args:
            rounding: ``[texts]`` in [0, 1), which rounds a share that is not a whole number of words up or down, so
                that the share is right on average.
            keys: ``[words]``, those of all texts one after the other.
        """
        masked_words = np.maximum((self.share * self.words + rounding).astype(np.int64), 1)
        text = np.repeat(np.arange(len(self.words)), self.words)
        rank = np.arange(len(text)) - np.repeat(self.words.cumsum() - self.words, self.words)
        chosen = np.zeros(len(text) + 1, bool)  # the last stands for tokens outside words
        chosen[np.lexsort((keys, text))] = rank < masked_words[text]
        self.masked = chosen[self.word]
        hidden = np.int32(self.tokenizer.mask_token_id)
        self.rows.fields["input_ids"] = np.where(self.masked, hidden, self.tokens)
        self.rows.fields["labels"] = np.where(self.masked, self.tokens, np.int32(IGNORED))

    def filled(self, tokens: NDArray[np.integer]) -> list[str]:
        """Return the texts with the words of ``tokens [tokens]`` for the masked ones, and all else as it is written."""
        sides = [text.split("\t", 1) for text in self.texts]
        masked = np.flatnonzero(self.masked)
        words = np.split(masked, np.flatnonzero(np.diff(self.word[masked])) + 1) if len(masked) else []
        for word in reversed(words):  # from the back, so that spans before it stay valid
            text, side = self._text[word[0]], self._side[word[0]]
            line, start, end = sides[text][side], self._spans[word, 0].min(), self._spans[word, 1].max()
            new = self.tokenizer.decode(tokens[word], clean_up_tokenization_spaces=False).strip()
            blank = line[start:end][: -len(line[start:end].lstrip()) or None]
            sides[text][side] = f"{line[:start]}{blank}{new}{line[end:]}"
        return ["\t".join(side) for side in sides]

    def _read(self) -> None:
        """Encode the texts, number the words, and find their characters."""
        encodings: list[Any] = []
        if len(self.texts):
            sides = map(list, zip(*(text.split("\t", 1) for text in self.texts), strict=True))
            # Split, a text that spells [MASK] has no mask there.
            how = {"truncation": True, "max_length": self.max_length, "split_special_tokens": True}
            encodings = self.tokenizer(*sides, **how, verbose=False).encodings
        tokens = _flat((encoding.ids for encoding in encodings), np.int32)
        types = _flat((encoding.type_ids for encoding in encodings), np.int32)
        side, word = (
            _flat((-1 if number is None else number for number in getattr(encoding, name)) for encoding in encodings)
            for name in ("sequence_ids", "word_ids")
        )
        spans = _flat(chain.from_iterable(encoding.offsets) for encoding in encodings).reshape(-1, 2)
        lengths = np.array([len(encoding.ids) for encoding in encodings], np.int64)
        text = np.repeat(np.arange(len(lengths)), lengths)
        written = np.flatnonzero((side >= 0) & (spans[:, 0] < spans[:, 1]))  # not special, not only white space
        # Words of the tokenizer that share a character are one word here, since they are written as one.
        apart = spans[written, 0] >= np.concatenate([[0], spans[written, 1]])[:-1]
        another = (np.diff(text[written], prepend=-1) != 0) | (np.diff(side[written], prepend=-1) != 0)
        first = another | (apart & (np.diff(word[written], prepend=-1) != 0))
        self.tokens, self._text, self._side, self._spans = tokens, text, side, spans
        self.word = np.full(len(tokens), -1)
        self.word[written] = first.cumsum() - 1
        self.words = np.bincount(text[written][first], minlength=len(lengths))
        self.whole = np.array([not encoding.overflowing for encoding in encodings], bool)
        typed = "token_type_ids" in self.tokenizer.model_input_names
        fields = {"input_ids": tokens, "labels": tokens} | ({"token_type_ids": types} if typed else {})
        padding = {"input_ids": self.tokenizer.pad_token_id or 0, "labels": IGNORED, "token_type_ids": 0}
        self.rows = TokenRows(fields, padding, np.concatenate([[0], lengths.cumsum()]))


def masked_fit(nats: float, texts: MaskedTexts) -> dict[str, float]:
    """Return ``bits_per_masked_token`` of texts whose masked tokens, all of them masked at once, take ``nats``."""
    return {"bits_per_masked_token": nats / math.log(2) / max(int(texts.masked.sum()), 1)}


def masked_nats(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood of each row's masked tokens, ``float32 [rows]``.

    ``logits`` are ``[rows, time, vocabulary]``, ``labels`` ``int64 [rows, time]``, ``IGNORED`` outside of masks.
    """
    rows, columns = (labels != IGNORED).nonzero(as_tuple=True)
    losses = functional.cross_entropy(logits[rows, columns].float(), labels[rows, columns], reduction="none")
    return torch.zeros(len(labels), device=losses.device).index_add(0, rows, losses)


def _flat(values: Iterable[Iterable[int]], kind: type[Any] = np.int64) -> NDArray[Any]:
    return np.fromiter(chain.from_iterable(values), kind)


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
        self.model, self.tokenizer, self.reporter = model, tokenizer, reporter
        self.kind, self.max_length, self.share = settings.kind, max_length, share
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
        tokens, order = texts.tokens.copy(), np.argsort(-texts.rows.lengths, kind="stable")
        uniforms = uniforms.float() if self.model.device.type == "mps" else uniforms
        for first in range(0, len(order), at_once):
            rows = order[first : first + at_once].tolist()
            batch = {name: values.to(self.model.device) for name, values in texts.rows.batch(rows).items()}
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
    """Make sure that a model fills masks in texts of ``length`` tokens, with finite logits; else a ``DataError``."""
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
