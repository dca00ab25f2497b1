"""Fine-tuning of a language model on the task's texts (Tang, Lu, Lin 2019)."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, set_seed

from kdcli.api import Corpus, DataError, GeneratorSettings, Reporter
from kdcli.lm import LanguageModelOptions
from kdcli.lm.causal import CausalDecoder
from kdcli.lm.fine_tune import Recipe, TrainingOutcome, best_of, fine_tune, join_processes, one_training, publish
from kdcli.lm.texts import TOKENS, Nats, TokenTexts, TrainingSet, causal_fit, scores_of, text_nats, token_nats
from kdcli.lm.trainer import Diverged, FineTuneTask
from kdcli.models.device import check_device
from kdcli.models.hf import Kind, load_lm, sha256

AUTO = 48  # texts an update with ``batch_size = "auto"``: the papers' recipe, which its learning rate is meant for
NOT_IN_FINGERPRINT = {"model", "save_steps"}


@dataclass(frozen=True)
class LanguageModel:
    """A language model to fine-tune, before its weights are built; by default a causal one.

    ``check`` raises for a model that cannot be sampled from, given the longest text; it is called before the training.
    ``texts`` makes ``TokenTexts`` or ``MaskedTexts`` of texts, tokenizer, longest text and seed (None to evaluate).
    """

    key: str  # its table of the profile, ``generators.gpt2``
    tokenizer: Any
    config: Any
    folder: Path | None  # where its weights are; None: random ones
    max_length: int  # the longest text in tokens, its end included
    kind: Kind = "causal"  # how a checkpoint is loaded
    nats: Nats = token_nats
    check: Callable[[Any, int], None] = lambda model, length: CausalDecoder(model).check(length)
    texts: Callable[[Sequence[str], Any, int, int | None], TrainingSet] = TokenTexts
    fit: Callable[[float, Any], dict[str, float]] = causal_fit  # scores of the nats of such texts, and the texts
    metric: str = "bits_per_character"  # the score that chooses among checkpoints; the lowest is the best

    def build(self, seed: int) -> Any:
        """Build the Hugging Face model in float32, new weights drawn with a seed."""
        set_seed(seed)
        if self.folder:
            return load_lm(self.folder, self.config, kind=self.kind)
        auto_class = AutoModelForMaskedLM if self.kind == "masked" else AutoModelForCausalLM
        return auto_class.from_config(self.config, dtype=torch.float32)

    def identity(self) -> dict[str, Any]:
        """Return what identifies it, as JSON values: the hash of its weights, or its vocabulary."""
        return {"weights": sha256(self.folder)} if self.folder else {"vocabulary": self.tokenizer.get_vocab()}


def fine_tune_language_model(
    model: LanguageModel, corpus: Corpus, checkpoint: Path, settings: GeneratorSettings, reporter: Reporter
) -> dict[str, Any]:
    """Fine-tune all parameters of a model; the checkpoint with the best dev score is kept.

    A killed training continues from its last checkpoint, in ``CHECKPOINT.training``. Under ``torchrun`` all processes
    call this. The options of ``settings`` are ``LanguageModelOptions``.

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
    task = _task(model, corpus, settings.seed)
    _check_texts(model, task.train, task.dev, reporter)
    folder = checkpoint.with_name(f"{checkpoint.name}.training")
    size = AUTO if options.batch_size == "auto" else options.batch_size
    share = -(-size // PartialState().num_processes)
    same = {"lr", "epochs", "max_steps", "weight_decay", "warmup", "save_steps", "gradient_checkpointing"}
    recipe = Recipe(
        **options.model_dump(include=same),
        batch_size=size,
        halve=True,  # fewer at once make the same update: memory never changes the result
        seed=settings.seed,
        device=settings.device,
        precision=settings.precision,
        at_once=-(-share // options.gradient_accumulation),
    )
    with one_training(folder, _fingerprint(model, corpus, options, settings), settings.resume, reporter, "generator"):
        outcome = fine_tune(folder / "run", task, recipe, reporter)
        best = best_of({folder / "run": outcome}, task) / "model"
        result = _result(model, outcome, corpus, best, settings)
        publish(best, checkpoint, result)
    return result


def _task(model: LanguageModel, corpus: Corpus, seed: int) -> FineTuneTask:
    train = model.texts(corpus.train, model.tokenizer, model.max_length, seed)
    dev = model.texts(corpus.dev, model.tokenizer, model.max_length, None)

    def build(seed: int) -> Any:
        built = model.build(seed).eval()
        model.check(built, model.max_length)
        return built.train()

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int) -> Tensor:
        return model.nats(scores_of(outputs), labels).sum() / num_items_in_batch

    def score(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        if not np.isfinite(predictions).all():
            raise Diverged("the probabilities are not finite any more")
        return model.fit(float(predictions.sum(dtype=np.float64)), dev)

    return FineTuneTask(
        stage="generator",
        key=model.key,
        tokenizer=model.tokenizer,
        train=train,
        dev=dev,
        build=build,
        loss=loss,
        score=score,
        metric=model.metric,
        greater_is_better=False,
        reduce=model.nats,
    )


def _check_texts(model: LanguageModel, train: Any, dev: Any, reporter: Reporter) -> None:
    known = model.config.get_text_config().vocab_size
    for name, texts in (("train", train), ("dev", dev)):
        if texts.tokens.max() >= known:
            what = f"the tokenizer is another model's: it has token {texts.tokens.max()}, the model has {known} tokens"
            raise DataError(what, hint="copy the model again, its tokenizer with it", key=f"{model.key}.model")
        if cut := int((~texts.whole).sum()):
            longer = f"{cut} of {len(texts.whole)} {name} texts are longer than {texts.max_length} tokens"
            reporter.warn(f"{longer}, and are cut there ({model.key}.max_length)")
    if train.seed is None:
        reporter.info("the tokenizer does not continue a word that was cut: no text is split for training")


def _fingerprint(
    model: LanguageModel, corpus: Corpus, options: LanguageModelOptions, settings: GeneratorSettings
) -> dict[str, Any]:
    values = options.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
    return {
        "training texts": _digest(list(corpus.train)),
        "dev texts": _digest(list(corpus.dev)),
        f"{model.key}.model": _digest(model.identity()),
        "configuration": _digest(model.config.to_dict()),
        **{f"{model.key}.{name}": value for name, value in values.items()},
        "seed": settings.seed,
        "device": torch.device(settings.device).type,
        "precision": settings.precision,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _result(
    model: LanguageModel, outcome: TrainingOutcome, corpus: Corpus, folder: Path, settings: GeneratorSettings
) -> dict[str, Any]:
    scores = {f"dev_{name}": value for name, value in outcome.metrics.items()}
    if corpus.test:
        best = load_lm(folder, kind=model.kind).to(settings.device).eval()
        texts = model.texts(corpus.test, model.tokenizer, model.max_length, None)
        tokens = min(outcome.at_once * model.max_length, TOKENS)  # no more than fitted into memory in training
        fit = model.fit(float(text_nats(best, texts, tokens, model.nats).sum()), texts)
        scores |= {f"test_{name}": value for name, value in fit.items()}
    details = {name: value for name, value in asdict(outcome).items() if name not in ("metrics", "stopped")}
    return {**scores, **details, "vocabulary": len(model.tokenizer)}
