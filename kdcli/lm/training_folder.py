"""The folder of a training: its lock, its fingerprint, its checkpoints, and the model that is published from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState

from kdcli.api import QuietReporter, Reporter
from kdcli.files import alone, atomic, remove
from kdcli.models.hf import quiet
from kdcli.parts import RECORD, claim_folder

_TIMING = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
"""What the Trainer adds to the dev scores."""
_MADE = ("*/checkpoint-*", "*/model/*", "*/outcome.json")
"""The files of ``fine_tune`` and of the Trainer in this folder."""


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
    added here, the number of processes and the versions of the libraries.

    Raises:
        KdError: Another process trains ``what`` (a teacher, a generator) here.
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


def trainer_states(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the Trainer's state of each whole checkpoint, by its update; the Trainer writes it last."""
    states = {}
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        try:
            states[int(path.parent.name.removeprefix("checkpoint-"))] = json.loads(path.read_text("utf-8"))
        except ValueError:
            continue
    return states


def best_checkpoint(folder: Path, metric: str) -> tuple[int | None, float, dict[str, float]]:
    """Return the best checkpoint on dev: its update, epoch and scores; ``(None, 0, {})`` before any evaluation."""
    states = trainer_states(folder)
    best = states[max(states)]["best_global_step"] if states else None
    if not best:
        return None, 0.0, {}
    history = states[best]["log_history"]
    point = next(point for point in history if point["step"] == best and f"eval_{metric}" in point)
    scores = {name.removeprefix("eval_"): value for name, value in point.items() if name.startswith("eval_")}
    return best, point["epoch"], {name: value for name, value in scores.items() if name not in _TIMING}


def keep_checkpoint(folder: Path, update: int, tokenizer: Any) -> None:
    """Make ``folder / "model"`` of a checkpoint: configuration, weights, tokenizer, and nothing else."""
    checkpoint = folder / f"checkpoint-{update}"
    with quiet(), atomic(folder / "model") as temporary:
        temporary.mkdir()
        for file in [*checkpoint.glob("*config.json"), *checkpoint.glob("*.safetensors*")]:
            shutil.copy(file, temporary)
        tokenizer.save_pretrained(temporary)
