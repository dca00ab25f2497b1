"""``kd teacher train``: fine-tune an encoder on the labelled rows (Tang et al. 2019, section "Method")."""

import inspect
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)

from kdcli.api import Reporter, Task
from kdcli.config.schema import TeacherSettings
from kdcli.config.table import nearest
from kdcli.errors import ProfileError
from kdcli.files import mark, sha256
from kdcli.lm.fine_tune import (
    OUTCOME,
    Recipe,
    TrainingOutcome,
    best_of,
    fine_tune,
    join_processes,
    one_training,
    publish,
)
from kdcli.lm.texts import SPECIAL, TokenRows, train_wordpiece
from kdcli.lm.trainer import Diverged, FineTuneTask
from kdcli.models.classifier import count_cut, input_names
from kdcli.models.device import at_hand, check_device, resolve
from kdcli.models.hf import find_model, fit_max_length, load_config, load_model, load_tokenizer, quiet
from kdcli.models.losses import balanced_weights, label_losses, warn_of_few
from kdcli.parts import Engine, LocalEngine, place, process_count
from kdcli.tasks import metrics
from kdcli.tasks.labels import encode_labels
from kdcli.teacher.model import warn_of_cuts

AUTO = 32
"""Texts an update with ``batch_size = "auto"``: paper A's recipe, which its learning rates are meant for."""
_CHUNK = 10_000  # texts that are tokenized at once
_NO_EFFECT = {"model", "plugin", "long_texts", "train", "lr", "save_steps", "export"}
"""Settings that do not change one learning rate's training, or stand in its fingerprint otherwise."""


@dataclass(frozen=True)
class TeacherResult:
    """A fine-tuned teacher."""

    metrics: dict[str, float]  # on dev
    lr: float
    batch_size: int  # texts an update, over all processes
    at_once: int  # texts that went through the model at once in one process
    epochs: float
    best_epoch: float  # the epoch of the best model on dev, which is kept
    updates: int
    parameters: int
    model: str  # the encoder it started from
    grid: dict[str, float | None]  # the dev score of each learning rate; None for one that diverged


def train_teacher(
    *,
    train: pl.DataFrame,
    dev: pl.DataFrame,
    task: Task,
    settings: TeacherSettings,
    seed: int,
    device: str,
    precision: str,
    output: Path,
    resume: bool = True,
    engine: "Engine | None" = None,
    reporter: Reporter | None = None,
) -> TeacherResult:
    """Fine-tune all parameters of an encoder and keep the best checkpoint on dev, a Hugging Face folder.

    Each learning rate is trained in ``OUTPUT.training/lr-VALUE``, from where a killed run goes on; several ones where
    the ``engine`` has room for them. Under ``torchrun`` all processes call this. Weights and optimiser are float32
    whatever the precision.
    """
    rates = np.atleast_1d(settings.lr).tolist()
    engine = engine if engine and len(rates) > 1 and process_count() == 1 else LocalEngine()
    device = engine.device(device)
    if at_hand(device) == device:
        check_device(device, precision, "teacher")
    reporter = join_processes(device, reporter)
    if 0 < settings.max_rows < len(train):
        chosen = np.random.default_rng(seed).permutation(len(train))[: settings.max_rows]
        train = train[np.sort(chosen)]  # GLUE's tables may be sorted by genre or label
    encoder = prepare_encoder(settings, task, [train[name] for name in task.columns], reporter)
    train_rows, dev_rows = (
        encoder.encode(table.select(task.columns), encode_labels(table["label"], task, file=split), reporter)
        for split, table in (("train", train), ("dev", dev))
    )
    batch = AUTO if settings.batch_size == "auto" else settings.batch_size
    warn_of_few(settings.max_steps or settings.epochs * ceil(len(train) / batch), "teacher", reporter)
    weights = None
    if settings.class_weights == "balanced" and train_rows.labels is not None:
        weights = balanced_weights(train_rows.labels, task.outputs)
    fine_tuning = FineTuneTask(
        stage="teacher",
        key="teacher",
        tokenizer=encoder.tokenizer,
        train=train_rows,
        dev=dev_rows,
        build=encoder.build,
        loss=partial(_loss, weights),
        score=partial(_score, task),
        metric=task.metric,
        greater_is_better=True,
    )
    folder = output.with_name(f"{output.name}.training")
    own = settings.model_dump(mode="json", exclude=_NO_EFFECT)
    fingerprint = {
        "training texts": train_rows.digest,
        "dev texts": dev_rows.digest,
        "teacher.model": settings.model if encoder.folder is None else sha256(encoder.folder),
        **{f"teacher.{key}": value for key, value in own.items()},
        "task": {name: getattr(task, name) for name in ("kind", "labels", "names", "metric", "multi_label")},
        "seed": seed,
        "device": torch.device(device).type,
        "precision": precision,
    }
    recipe = Recipe(
        lr=0.0,
        **settings.model_dump(include={"epochs", "max_steps", "weight_decay", "warmup", "save_steps"}),
        batch_size=batch,
        halve=settings.batch_size == "auto",
        seed=seed,
        device=device,
        precision=precision,
    )
    with one_training(folder, fingerprint, resume, reporter, "teacher"):
        recipes = {folder / f"lr-{lr!r}": replace(recipe, lr=lr) for lr in rates}
        files = [encoder.folder] if encoder.folder else []
        outcomes = _train_each(recipes, fine_tuning, engine, files, reporter)
        best = best_of(outcomes, fine_tuning)
        grid = {repr(outcome.lr): outcome.metrics.get(task.metric) for outcome in outcomes.values()}
        values = {name: value for name, value in asdict(outcomes[best]).items() if name != "stopped"}
        result = TeacherResult(**values, model=settings.model, grid=grid)
        publish(best / "model", output, asdict(result))
    return result


def _train_each(
    recipes: Mapping[Path, Recipe], task: FineTuneTask, engine: Engine, files: Sequence[Path], reporter: Reporter
) -> dict[Path, TrainingOutcome]:
    """Fine-tune a model by several recipes, each in its folder, where the engine trains; the task reads ``files``."""
    there = {path: fine_tune(path, task, recipes[path], reporter) for path in recipes if (path / OUTCOME).exists()}
    todo = [path for path in recipes if path not in there]
    for path in filter(Path.exists, todo):
        mark(path)  # what comes from another machine may replace it
    part = TrainingPart(task, [recipes[path] for path in todo])
    how: dict[str, Any] = {"device": next(iter(recipes.values())).device, "files": files, "reporter": reporter}
    with engine:
        for number, outcome in engine.make(part, dict(enumerate(todo)), keep=True, **how):
            there[todo[number]] = outcome
    return {path: there[path] for path in recipes}


@dataclass(frozen=True)
class TrainingPart:
    """Makes a part: fine-tunes by one of several recipes, in a folder; returns the outcome."""

    task: FineTuneTask
    recipes: Sequence[Recipe]

    def __call__(self, part: int, path: Path, *, reporter: Reporter) -> TrainingOutcome:
        """Train in ``path`` by recipe ``part``, from its last checkpoint on."""
        recipe = self.recipes[part]
        check_device(recipe.device, recipe.precision, self.task.stage)
        join_processes(recipe.device, None)
        return fine_tune(path, self.task, replace(recipe, device=resolve(recipe.device)), reporter)


@dataclass(frozen=True)
class Encoder:
    """A model to fine-tune, before its weights are loaded."""

    config: Any  # the Hugging Face configuration, head and label names included
    tokenizer: Any
    max_length: int  # of an input in word pieces, at most what the model takes
    folder: Path | None  # of its pretrained weights; None for a model that starts at random

    def build(self, seed: int) -> Any:
        """Return the model in float32, its new weights drawn with ``seed``, all parameters to be trained."""
        set_seed(seed)
        if self.folder is not None:
            folder, kind = place(self.folder), AutoModelForSequenceClassification
            model = load_model(folder, kind, config=self.config, allow_new="head")
            return model.requires_grad_(True)
        try:
            with quiet():
                return AutoModelForSequenceClassification.from_config(self.config, dtype=torch.float32)
        except Exception as error:  # each architecture checks its sizes in its own way
            what = f"no {self.config.model_type} model can be made: {error}"
            raise ProfileError(what, key="teacher.config") from error

    def encode(self, texts: pl.DataFrame, labels: np.ndarray, reporter: Reporter) -> TokenRows:
        """Turn texts into word pieces, at most ``max_length`` a row; of a pair the longer text is cut first."""
        names = input_names(self.config, self.tokenizer, _arguments(self.config) - {"attention_mask"})
        pieces: dict[str, list[np.ndarray]] = {name: [np.zeros(0, np.int32)] for name in names}
        lengths: list[int] = []
        cut = 0
        with reporter.progress("word pieces", len(labels)) as progress:
            for chunk in texts.iter_slices(_CHUNK):
                encoded = self.tokenizer(
                    *(column.to_list() for column in chunk),
                    truncation=True,
                    max_length=self.max_length,
                    return_attention_mask=False,
                    return_token_type_ids="token_type_ids" in names,
                )
                lengths += map(len, encoded["input_ids"])
                cut += count_cut(encoded, self.max_length)
                for name in names:
                    pieces[name] += [np.asarray(row, np.int32) for row in encoded[name]]
                progress.advance(len(chunk))
        warn_of_cuts(cut, len(lengths), self.max_length, "cut", reporter)
        padding = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        fields = {name: np.concatenate(rows) for name, rows in pieces.items()}
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        left = self.tokenizer.padding_side == "left"
        return TokenRows(fields, {name: padding.get(name, 0) for name in names}, offsets, labels, left)


def prepare_encoder(settings: TeacherSettings, task: Task, texts: list[pl.Series], reporter: Reporter) -> Encoder:
    """Find the encoder that ``teacher.model`` names, or make one from ``teacher.config`` and the training texts."""
    names = ("score",) if task.is_score else task.names or task.labels
    head = {
        "num_labels": task.outputs,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": "regression"
        if task.is_score
        else f"{'multi' if task.multi_label else 'single'}_label_classification",
    }
    folder = None
    if settings.model == "config":
        pieces = train_wordpiece([column.to_list() for column in texts], settings.vocab_size)
        config = _config(settings.config, pieces.get_vocab_size(), head)
        inputs = ["input_ids", "attention_mask"]
        if "token_type_ids" in _arguments(config) and getattr(config, "type_vocab_size", 0) > 1:
            inputs.insert(1, "token_type_ids")
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_input_names=inputs, **SPECIAL)
    else:
        folder = find_model(settings.model, reporter)
        config, tokenizer = load_config(folder, **head), load_tokenizer(folder, needs=("pad",))
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
    longest = fit_max_length(settings.max_length, config, tokenizer, key="teacher.max_length", reporter=reporter)
    if settings.model == "config":
        tokenizer.model_max_length = longest
    return Encoder(config, tokenizer, longest, folder)


def _config(table: dict[str, Any], vocab_size: int, head: dict[str, Any]) -> Any:
    """Make a configuration from the table ``teacher.config``."""
    values = dict(table)
    kind = values.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        what = f"there is no model type {kind!r}" if kind else 'model = "config" needs a model_type'
        near = nearest(str(kind), CONFIG_MAPPING) or "bert"
        raise ProfileError(what, key="teacher.config.model_type", hint=f'for example model_type = "{near}"')
    known = CONFIG_MAPPING[kind]().to_dict()
    for name in sorted(set(values) - set(known)):
        hint = f"did you mean {nearest(name, known)!r}?" if nearest(name, known) else None
        raise ProfileError(f"a {kind} configuration has no {name!r}", key=f"teacher.config.{name}", hint=hint)
    # The vocabulary is ours, so the ids that a model type has for its own would point anywhere.
    ids = {f"{name}_id": number for number, name in enumerate(SPECIAL)} | {"bos_token_id": None, "eos_token_id": None}
    ours = {"vocab_size": vocab_size, **{name: number for name, number in ids.items() if name in known}}
    try:
        return AutoConfig.for_model(kind, **{**values, **ours, **head})
    except Exception as error:  # each configuration checks its values in its own way
        raise ProfileError(f"no {kind} model can be made: {error}", key="teacher.config") from error


def _arguments(config: Any) -> Set[str]:
    model = AutoModelForSequenceClassification._model_mapping[type(config)]
    return inspect.signature(model.forward).parameters.keys()


def _loss(weights: Tensor | None, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int) -> Tensor:
    """Return the mean loss of the labels of an update, of which there are ``num_items_in_batch`` in all."""
    weights = weights if weights is None else weights.to(labels.device)
    return label_losses(outputs["logits"], labels, weights).sum() / num_items_in_batch


def _score(task: Task, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    logits = predictions.astype(np.float32).reshape(len(predictions), -1)
    if not np.isfinite(logits).all():
        raise Diverged("the logits are not finite any more")
    return metrics.score(task, logits, labels)
