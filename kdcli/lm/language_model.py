"""Fine-tuning of a language model on the task's texts (Tang, Lu, Lin 2019)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor

from kdcli.api import Corpus, DataError, GeneratorSettings, Reporter
from kdcli.lm.causal import check
from kdcli.lm.fine_tune import Recipe, fine_tune
from kdcli.lm.fit import TOKENS, Fit, Nats, nats, scores_of, text_nats
from kdcli.lm.learner import Examples
from kdcli.lm.options import LanguageModelOptions
from kdcli.lm.outcome import Outcome, best_of
from kdcli.lm.texts import TokenTexts
from kdcli.lm.trainer import Diverged
from kdcli.lm.work import check_device, join_processes, one_training, publish

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
        """What they are made anew with in each epoch; None if they stay as they are."""


@dataclass(frozen=True)
class LanguageModel:
    """A language model to fine-tune, as far as it is known before its weights are made: a causal one by default.

    Attributes:
        key: Its table of the profile, ``generators.gpt2``.
        tokenizer: Its tokenizer.
        build: Makes the Hugging Face model in float32, from a seed.
        load: Reads the Hugging Face model that the training has saved.
        identity: What else it is made from, as JSON values: the hash of its weights, or its vocabulary.
        config: Its configuration.
        max_length: The longest text in tokens, its end included.
        nats: What makes nats of the model's output.
        check: Refuses a model that could not be sampled from, given the longest text; before it is trained.
        texts: Makes what is learned of texts, tokenizer, longest text and seed; without a seed, what judges a model.
        fit: Makes a dataclass of scores of the nats that a model needs for such texts, and of these.
        metric: The score that chooses among checkpoints; the lowest is the best.
    """

    key: str
    tokenizer: Any
    build: Callable[[int], Any]
    load: Callable[[Path], Any]
    identity: Mapping[str, Any]
    config: Any
    max_length: int
    nats: Nats = nats
    check: Callable[[Any, int], None] = check
    texts: Callable[[Sequence[str], Any, int, int | None], Texts] = TokenTexts
    fit: Callable[[float, Any], Any] = Fit.of
    metric: str = "bits_per_character"


def fine_tune_language_model(
    model: LanguageModel, corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter
) -> dict[str, Any]:
    """Fine-tune all parameters of a model; the checkpoint with the best dev score is kept.

    A killed training goes on from its last checkpoint, in ``CHECKPOINT.training``. Under ``torchrun`` all processes
    call this.

    Args:
        model: The model.
        corpus: The task's texts.
        checkpoint: The Hugging Face folder to write.
        settings: Device, precision, seed; its options are ``LanguageModelOptions``.
        reporter: Told of everything.

    Returns:
        The scores of dev and test (bits per character, word perplexity), and how they were reached.

    Raises:
        DataError: There are no texts.
        KdError: The training broke down; memory or disk space ran out; another process trains here.
        MissingError: The device is not there.
        UsageError: The device cannot compute in this precision.
    """
    options = settings.options
    assert isinstance(options, LanguageModelOptions)
    check_device(settings.device, settings.precision, "generator")
    reporter = join_processes(settings.device, reporter)
    for name, texts in (("train", corpus.train), ("dev", corpus.dev)):
        if not texts:
            raise DataError(f"there are no {name} texts to fine-tune on", hint="look at the cache of the run")
    learner = _Learner(
        model,
        model.texts(corpus.train, model.tokenizer, model.max_length, settings.seed),
        model.texts(corpus.dev, model.tokenizer, model.max_length, None),
    )
    _look_at(learner, reporter)
    work = checkpoint.with_name(f"{checkpoint.name}.training")
    recipe = _recipe(options, settings)
    with one_training(work, _fingerprint(model, corpus, options, settings), settings.resume, reporter, "generator"):
        outcome = fine_tune(work / "run", learner, recipe, reporter)
        folder = best_of({work / "run": outcome}, learner)
        result = _result(model, outcome, corpus, folder / "model", settings)
        publish(folder / "model", checkpoint, result)
    return result


@dataclass
class _Learner:
    """A language model as ``kdcli.lm`` sees it."""

    model: LanguageModel
    train: Texts
    dev: Texts
    stage: str = "generator"
    greater_is_better: bool = False
    key: str = field(init=False)
    metric: str = field(init=False)
    tokenizer: Any = field(init=False)

    def __post_init__(self) -> None:
        self.key, self.metric, self.tokenizer = self.model.key, self.model.metric, self.model.tokenizer

    def build(self, seed: int) -> Any:
        """Return the model to start from."""
        model = self.model.build(seed).eval()
        self.model.check(model, self.model.max_length)
        return model.train()

    def loss(self, outputs: Any, labels: Tensor, items: Tensor | int) -> Tensor:
        """Return the nats of a batch over the predicted tokens of its update."""
        return self.model.nats(scores_of(outputs), labels).sum() / items

    def reduce(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the nats of each row, ``[batch]``."""
        return self.model.nats(logits, labels)

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return how well the dev texts are predicted."""
        if not np.isfinite(predictions).all():
            raise Diverged("the probabilities are no numbers any more")
        return asdict(self.model.fit(float(predictions.sum(dtype=np.float64)), self.dev))


def _look_at(learner: _Learner, reporter: Reporter) -> None:
    """Look at the encoded texts before they are learned.

    Raises:
        DataError: The model has no such tokens.
    """
    known = learner.model.config.get_text_config().vocab_size
    for name, texts in (("train", learner.train), ("dev", learner.dev)):
        if texts.tokens.max() >= known:
            what = f"the tokenizer is another model's: it gives token {texts.tokens.max()}, the model knows {known}"
            raise DataError(what, hint="copy the model again, its tokenizer with it", key=f"{learner.key}.model")
        if cut := int((~texts.whole).sum()):
            longer = f"{cut} of {len(texts)} {name} texts are longer than {texts.max_length} tokens"
            reporter.warn(f"{longer}, and are cut there ({learner.key}.max_length)")
    if learner.train.seed is None:
        reporter.info("the tokenizer does not go on with a word that was cut: no text is split for training")


def _recipe(options: LanguageModelOptions, settings: GeneratorSettings) -> Recipe:
    size = AUTO if options.batch_size == "auto" else options.batch_size
    share = -(-size // PartialState().num_processes)
    return Recipe(
        lr=options.lr,
        epochs=options.epochs,
        max_steps=options.max_steps,
        batch_size="auto",  # fewer at once are the same update, so that memory never decides about it
        auto=size,
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


def _digest(texts: Any) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def _result(
    model: LanguageModel, outcome: Outcome, corpus: Corpus, folder: Path, settings: GeneratorSettings
) -> dict[str, Any]:
    found = {f"dev_{name}": value for name, value in outcome.metrics.items()}
    if corpus.test:
        best = model.load(folder).to(settings.device).eval()
        texts = model.texts(corpus.test, model.tokenizer, model.max_length, None)
        fits = min(outcome.at_once * model.max_length, TOKENS)  # as many as memory has sufficed for
        fit = model.fit(float(text_nats(best, texts, fits, model.nats).sum()), texts)
        found |= {f"test_{name}": value for name, value in asdict(fit).items()}
    about = {"lr": outcome.lr, "batch_size": outcome.batch_size, "at_once": outcome.at_once}
    about |= {"updates": outcome.updates, "best_epoch": outcome.best_epoch, "epochs": outcome.epochs}
    return {**found, **about, "parameters": outcome.parameters, "vocabulary": len(model.tokenizer)}
