"""Fine-tuning with the Hugging Face Trainer at one learning rate: resumable, the best dev checkpoint kept."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import PartialState
from transformers import PrinterCallback

from kdcli.api import QuietReporter, Reporter
from kdcli.errors import KdError, ProfileError
from kdcli.files import alone, atomic, full_disk, remove, write_json
from kdcli.lm.trainer import Arguments, ByLength, ByLengthTrainer, Diverged, FineTuneTask, Watch
from kdcli.models.device import halve_until_it_fits
from kdcli.models.hf import quiet
from kdcli.parts import RECORD, claim_folder

LOG_EVERY = 10
_TIMING = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
"""What the Trainer adds to the dev scores."""
OUTCOME = "outcome.json"
_MADE = ("*/checkpoint-*", "*/model/*", f"*/{OUTCOME}")  # the files of ``fine_tune`` and of the Trainer in its folder


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune."""

    lr: float  # the highest of AdamW's linear schedule
    epochs: int
    max_steps: int  # the largest number of updates; 0 = no limit
    batch_size: int  # rows an update, over all processes
    halve: bool  # whether fewer rows go at once when memory runs out; their gradients add up to the same update
    weight_decay: float
    warmup: float  # the share of the updates in which the learning rate rises
    save_steps: int  # updates between checkpoints, beside the one after each epoch; 0 = none
    seed: int
    device: str
    precision: str  # of the arithmetic; weights and optimiser are always float32
    at_once: int = 0  # the largest number of rows at once in one process; 0 = all of an update
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class TrainingOutcome:
    """The outcome of one learning rate."""

    lr: float
    metrics: dict[str, float]  # dev scores of the best checkpoint; empty if the training diverged before the first one
    best_epoch: float
    epochs: float
    updates: int
    batch_size: int  # texts an update, over all processes
    at_once: int  # texts that go through the model at once in one process
    parameters: int
    stopped: str | None = None  # why the training ended early, if it did


def fine_tune(folder: Path, task: FineTuneTask, recipe: Recipe, reporter: Reporter) -> TrainingOutcome:
    """Fine-tune a model; its best checkpoint on dev ends up in ``folder / "model"``.

    The folder lies inside that of ``one_training``. An outcome in it is used as it is, and a training continues from
    its checkpoints. Under ``torchrun`` all processes call this.
    """
    record = folder / OUTCOME
    if not record.exists():
        _train(folder, task, recipe, reporter)
    outcome = TrainingOutcome(**json.loads(record.read_text("utf-8")))
    score = f"{task.metric} {outcome.metrics[task.metric]:.4f} on dev" if outcome.metrics else "no checkpoint"
    if outcome.stopped:
        reporter.warn(f"training at {outcome.lr:g} stopped: {outcome.stopped}; best model before: {score}")
    else:
        after = f"after epoch {round(outcome.best_epoch, 2):g} of {round(outcome.epochs, 2):g}"
        reporter.info(f"fine-tuned at {outcome.lr:g}: {score}, {after}")
    return outcome


def best_of(outcomes: Mapping[Path, TrainingOutcome], task: FineTuneTask) -> Path:
    """Return the folder of the best outcome on dev, the first of equals; if every training diverged, a ``KdError``."""
    scores = {folder: outcome.metrics[task.metric] for folder, outcome in outcomes.items() if outcome.metrics}
    if not scores:
        hint = f"try a lower {task.key}.lr, more {task.key}.warmup, or fp32"
        stopped = next(iter(outcomes.values())).stopped
        raise KdError(f"the training broke down: {stopped}", hint=hint, key=f"{task.key}.lr")
    better = max if task.greater_is_better else min
    return better(scores, key=lambda folder: scores[folder])


def _train(folder: Path, task: FineTuneTask, recipe: Recipe, reporter: Reporter) -> None:
    training, state = _Training(folder, task, recipe, reporter), PartialState()
    # Several processes run out of memory at different times, and would wait for each other for ever.
    auto = recipe.halve and state.num_processes == 1
    hint = f"a shorter {task.key}.max_length" if recipe.halve else f'{task.key}.batch_size = "auto"'
    stopped = None
    try:
        with full_disk(folder):
            rows, key = recipe.at_once or training.share, f"{task.key}.batch_size"
            halve_until_it_fits(training.run, rows, reporter=reporter, auto=auto, hint=f"try {hint}", key=key)
    except Diverged as error:
        stopped = str(error)
    state.wait_for_everyone()
    if state.is_main_process:
        with full_disk(folder):
            best, outcome = training.outcome(stopped)
            if best:
                _keep(folder / f"checkpoint-{best}", folder / "model", task.tokenizer)
            write_json(folder / OUTCOME, asdict(outcome))
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    state.wait_for_everyone()


class _Training:
    """One learning rate: the numbers of its updates, and the Trainer."""

    def __init__(self, folder: Path, task: FineTuneTask, recipe: Recipe, reporter: Reporter) -> None:
        self.folder, self.task, self.recipe, self.reporter = folder, task, recipe, reporter
        processes = PartialState().num_processes
        self.share = math.ceil(recipe.batch_size / processes)  # rows of an update in this process
        self.update = self.share * processes
        self.epoch_updates = math.ceil(len(task.train.rows) / self.update)
        every = self.epoch_updates * recipe.epochs
        self.updates = min(recipe.max_steps or every, every)
        self.at_once = self.share
        self.parameters = 0

    def run(self, rows: int) -> None:
        """Train with at most ``rows`` at once, from the last whole checkpoint on if there is one."""
        # A divisor, so that an update stays the same.
        self.at_once = next(size for size in range(min(rows, self.share), 0, -1) if self.share % size == 0)
        last = max(_states(self.folder), default=0)
        if last >= self.updates:
            return
        task, recipe = self.task, self.recipe
        order = ByLength(task.train, self.update, recipe.seed)
        title = f"fine-tune at {recipe.lr:g}"
        with quiet(), self.reporter.progress(title, self.updates, "updates") as progress:
            watch = Watch(task, order, progress, self.reporter, self.epoch_updates, recipe.save_steps, recipe.lr)
            trainer = ByLengthTrainer(
                order,
                model=self._model(),
                args=self._arguments(),
                train_dataset=task.train,
                eval_dataset=task.dev,
                compute_metrics=lambda found: task.score(np.asarray(found.predictions), found.label_ids),
                # The Trainer expects a loss divided by the rows of the whole update. A model's own loss is divided by
                # the rows that it sees, so that gradients would grow with the pieces of an update and the processes.
                compute_loss_func=task.loss,
                # Some models return more than logits.
                preprocess_logits_for_metrics=lambda logits, labels: task.reduce(
                    logits[0] if isinstance(logits, tuple) else logits, labels
                ),
                callbacks=[watch],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train(resume_from_checkpoint=str(self.folder / f"checkpoint-{last}") if last else None)

    def outcome(self, stopped: str | None) -> tuple[int | None, TrainingOutcome]:
        """Return the update of the best checkpoint, and the outcome."""
        states, score, epoch, scores = _states(self.folder), f"eval_{self.task.metric}", 0.0, {}
        done = max(states, default=0) if stopped else self.updates
        if best := states[max(states)]["best_global_step"] if states else None:
            history = states[best]["log_history"]
            point = next(point for point in history if point["step"] == best and score in point)
            found = {name.removeprefix("eval_"): value for name, value in point.items() if name.startswith("eval_")}
            epoch, scores = point["epoch"], {name: found[name] for name in found if name not in _TIMING}
        if not self.parameters:
            self._model()
        return best, TrainingOutcome(
            lr=self.recipe.lr,
            metrics=scores,
            best_epoch=epoch,
            epochs=done / self.epoch_updates,
            updates=done,
            batch_size=self.update,
            at_once=self.at_once,
            parameters=self.parameters,
            stopped=stopped,
        )

    def _model(self) -> Any:
        model = self.task.build(self.recipe.seed)
        if self.recipe.gradient_checkpointing and not model.supports_gradient_checkpointing:
            what = f"{type(model).__name__} has no gradient checkpointing"
            raise ProfileError(what, key=f"{self.task.key}.gradient_checkpointing", hint="set it to false")
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        return model

    def _arguments(self) -> Arguments:
        recipe, device = self.recipe, torch.device(self.recipe.device)
        return Arguments(
            output_dir=str(self.folder.resolve()),
            learning_rate=recipe.lr,
            max_steps=self.updates,
            warmup_steps=math.ceil(recipe.warmup * self.updates),
            weight_decay=recipe.weight_decay,
            per_device_train_batch_size=self.at_once,
            gradient_accumulation_steps=self.share // self.at_once,
            per_device_eval_batch_size=2 * self.at_once,
            gradient_checkpointing=recipe.gradient_checkpointing,
            seed=recipe.seed,
            use_cpu=device.type == "cpu",
            gpu=device.index if PartialState().num_processes == 1 else None,
            bf16=recipe.precision == "bf16",
            fp16=recipe.precision == "fp16",
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            metric_for_best_model=self.task.metric,
            greater_is_better=self.task.greater_is_better,
            label_names=["labels"],
            logging_steps=LOG_EVERY,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
            log_level="error",
        )


def join_processes(device: str, reporter: Reporter | None) -> Reporter:
    """Join the processes of ``torchrun``, if there are any; only the main one keeps its reporter."""
    main = PartialState(cpu=torch.device(device).type == "cpu").is_main_process
    return reporter if reporter and main else QuietReporter()


@contextmanager
def one_training(
    folder: Path, fingerprint: Mapping[str, Any], resume: bool, reporter: Reporter, what: str
) -> Iterator[None]:
    """Train in a folder that belongs to this training alone, and is removed when it ends well; all processes enter.

    With ``resume``, a killed training continues if its fingerprint was the same: inputs, settings, seed, and what is
    added here, the number of processes and the versions of the libraries. Another process at it is a ``KdError``.
    """
    state = PartialState()
    with alone(folder, f"another process trains this {what} already") if state.is_main_process else nullcontext():
        if state.is_main_process:
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            everything = {**fingerprint, "processes": state.num_processes, **versions}
            if claim_folder(folder, everything, _MADE, resume=resume, reporter=reporter):
                reporter.info("continuing the interrupted training")
        state.wait_for_everyone()
        yield
        state.wait_for_everyone()  # another process may still read what is about to be removed
        if state.is_main_process:
            remove(folder, (RECORD, *_MADE))
    state.wait_for_everyone()


def publish(model: Path, output: Path, metrics: Mapping[str, Any]) -> None:
    """Copy a model's folder to ``output``, with ``metrics.json``, whole or not at all."""
    if not PartialState().is_main_process:
        return
    with atomic(output) as temporary:
        shutil.copytree(model, temporary)
        (temporary / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", "utf-8")


def _states(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the Trainer's state of each whole checkpoint, by its update; the Trainer writes it last."""
    states = {}
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        with suppress(ValueError):
            states[int(path.parent.name.removeprefix("checkpoint-"))] = json.loads(path.read_text("utf-8"))
    return states


def _keep(checkpoint: Path, output: Path, tokenizer: Any) -> None:
    """Copy a checkpoint's configuration and weights, with the tokenizer, and nothing else."""
    with quiet(), atomic(output) as temporary:
        temporary.mkdir()
        for file in [*checkpoint.glob("*config.json"), *checkpoint.glob("*.safetensors*")]:
            shutil.copy(file, temporary)
        tokenizer.save_pretrained(temporary)
