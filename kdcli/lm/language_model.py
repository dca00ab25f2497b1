"""Fine-tuning of a language model on the task's texts (Tang, Lu, Lin 2019)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor

from kdcli.api import Corpus, DataError, GeneratorSettings, Reporter
from kdcli.lm.causal import check_causal
from kdcli.lm.fine_tune import Diverged, Outcome, Recipe, best_of, fine_tune
from kdcli.lm.options import LanguageModelOptions
from kdcli.lm.texts import TOKENS, Examples, Fit, Nats, TokenTexts, scores_of, text_nats, token_nats
from kdcli.lm.training_folder import join_processes, one_training, publish
from kdcli.models.device import check_device

AUTO = 48
"""Texts an update with ``batch_size = "auto"``: the papers' recipe, which its learning rate is meant for."""
NOT_IN_FINGERPRINT = {"model", "save_steps"}


class Texts(Examples, Protocol):
    """Texts as a language model learns them: ``TokenTexts``, or ``MaskedTexts``."""

    @property
    def tokens(self) -> NDArray[np.int32]:
        """The tokens of all texts, one after the other."""

    @property
    def whole(self) -> NDArray[np.bool_]:
        """``bool [texts]``, whether a text is read to its end."""

    @property
    def max_length(self) -> int:
        """The longest text in tokens."""

    @property
    def seed(self) -> int | None:
        """Seed of what changes from epoch to epoch; None if nothing does."""


@dataclass(frozen=True)
class LanguageModel:
    """A language model to fine-tune, before its weights are built: a causal one by default.

    Attributes:
        key: Its table of the profile, ``generators.gpt2``.
        tokenizer: Its tokenizer.
        build: Builds the Hugging Face model in float32, from a seed.
        load: Loads the Hugging Face model that the training has saved.
        identity: What else it depends on, as JSON values: the hash of its weights, or its vocabulary.
        config: Its configuration.
        max_length: The longest text in tokens, its end included.
        nats: Turns the model's output into nats.
        check: Raises for a model that cannot be sampled from, given the longest text; called before the training.
        texts: Encodes texts, with tokenizer, longest text and seed; without a seed, for evaluation.
        fit: Turns the nats of such texts, and the texts, into a dataclass of scores.
        metric: The score that chooses among checkpoints; the lowest is the best.
    """

    key: str
    tokenizer: Any
    build: Callable[[int], Any]
    load: Callable[[Path], Any]
    identity: Mapping[str, Any]
    config: Any
    max_length: int
    nats: Nats = token_nats
    check: Callable[[Any, int], None] = check_causal
    texts: Callable[[Sequence[str], Any, int, int | None], Texts] = TokenTexts
    fit: Callable[[float, Any], Any] = Fit.of
    metric: str = "bits_per_character"


def fine_tune_language_model(
    model: LanguageModel, corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter
) -> dict[str, Any]:
    """Fine-tune all parameters of a model; the checkpoint with the best dev score is kept.

    A killed training continues from its last checkpoint, in ``CHECKPOINT.training``. Under ``torchrun`` all processes
    call this.

    Args:
        model: The model.
        corpus: The task's texts.
        checkpoint: The Hugging Face folder to write.
        settings: Device, precision, seed; its options are ``LanguageModelOptions``.
        reporter: Shows the progress, and gets the learning curve.

    Returns:
        The scores of dev and test (bits per character, word perplexity), and how they were reached.

    Raises:
        DataError: There are no texts, or the tokenizer is another model's.
        KdError: The training diverged; memory or disk space ran out; another process trains here.
        MissingError: The machine has no such device.
        UsageError: The device cannot compute in this precision.
    """
    options = settings.options
    assert isinstance(options, LanguageModelOptions)
    check_device(settings.device, settings.precision, "generator")
    reporter = join_processes(settings.device, reporter)
    for name, texts in (("train", corpus.train), ("dev", corpus.dev)):
        if not texts:
            raise DataError(f"there are no {name} texts to fine-tune on", hint="look at the cache of the run")
    task = _Task(
        model,
        model.texts(corpus.train, model.tokenizer, model.max_length, settings.seed),
        model.texts(corpus.dev, model.tokenizer, model.max_length, None),
    )
    _check_texts(task, reporter)
    folder = checkpoint.with_name(f"{checkpoint.name}.training")
    recipe = _recipe(options, settings)
    with one_training(folder, _fingerprint(model, corpus, options, settings), settings.resume, reporter, "generator"):
        outcome = fine_tune(folder / "run", task, recipe, reporter)
        best = best_of({folder / "run": outcome}, task) / "model"
        result = _result(model, outcome, corpus, best, settings)
        publish(best, checkpoint, result)
    return result


@dataclass
class _Task:
    """A language model as a ``FineTuneTask``."""

    model: LanguageModel
    train: Texts
    dev: Texts
    stage: str = "generator"
    greater_is_better: bool = False

    def __post_init__(self) -> None:
        self.key, self.metric, self.tokenizer = self.model.key, self.model.metric, self.model.tokenizer

    def build(self, seed: int) -> Any:
        model = self.model.build(seed).eval()
        self.model.check(model, self.model.max_length)
        return model.train()

    def loss(self, outputs: Any, labels: Tensor, items: Tensor | int) -> Tensor:
        return self.model.nats(scores_of(outputs), labels).sum() / items

    def reduce(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.model.nats(logits, labels)

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        if not np.isfinite(predictions).all():
            raise Diverged("the probabilities are not finite any more")
        return asdict(self.model.fit(float(predictions.sum(dtype=np.float64)), self.dev))


def _check_texts(task: _Task, reporter: Reporter) -> None:
    known = task.model.config.get_text_config().vocab_size
    for name, texts in (("train", task.train), ("dev", task.dev)):
        if texts.tokens.max() >= known:
            what = f"the tokenizer is another model's: it has token {texts.tokens.max()}, the model has {known} tokens"
            raise DataError(what, hint="copy the model again, its tokenizer with it", key=f"{task.key}.model")
        if cut := int((~texts.whole).sum()):
            longer = f"{cut} of {len(texts)} {name} texts are longer than {texts.max_length} tokens"
            reporter.warn(f"{longer}, and are cut there ({task.key}.max_length)")
    if task.train.seed is None:
        reporter.info("the tokenizer does not continue a word that was cut: no text is split for training")


def _recipe(options: LanguageModelOptions, settings: GeneratorSettings) -> Recipe:
    size = AUTO if options.batch_size == "auto" else options.batch_size
    share = -(-size // PartialState().num_processes)
    return Recipe(
        lr=options.lr,
        epochs=options.epochs,
        max_steps=options.max_steps,
        batch_size=size,
        halve=True,  # fewer at once are the same update, so that memory never decides about the result
        weight_decay=options.weight_decay,
        warmup=options.warmup,
        save_steps=options.save_steps,
        seed=settings.seed,
        device=settings.device,
        precision=settings.precision,
        at_once=-(-share // options.gradient_accumulation),
        gradient_checkpointing=options.gradient_checkpointing,
    )


def _fingerprint(
    model: LanguageModel, corpus: Corpus, options: LanguageModelOptions, settings: GeneratorSettings
) -> dict[str, Any]:
    values = options.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
    return {
        "training texts": _digest(corpus.train),
        "dev texts": _digest(corpus.dev),
        f"{model.key}.model": _digest([json.dumps(model.identity, sort_keys=True, default=str)]),
        "configuration": _digest([json.dumps(model.config.to_dict(), sort_keys=True, default=str)]),
        **{f"{model.key}.{name}": value for name, value in values.items()},
        "seed": settings.seed,
        "device": torch.device(settings.device).type,
        "precision": settings.precision,
    }


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def _result(
    model: LanguageModel, outcome: Outcome, corpus: Corpus, folder: Path, settings: GeneratorSettings
) -> dict[str, Any]:
    scores = {f"dev_{name}": value for name, value in outcome.metrics.items()}
    if corpus.test:
        best = model.load(folder).to(settings.device).eval()
        texts = model.texts(corpus.test, model.tokenizer, model.max_length, None)
        tokens = min(outcome.at_once * model.max_length, TOKENS)  # no more than fitted into memory in training
        fit = model.fit(float(text_nats(best, texts, tokens, model.nats).sum()), texts)
        scores |= {f"test_{name}": value for name, value in asdict(fit).items()}
    details = {name: value for name, value in asdict(outcome).items() if name not in ("metrics", "stopped")}
    return {**scores, **details, "vocabulary": len(model.tokenizer)}
