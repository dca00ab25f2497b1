"""The Trainer's checkpoints of one training, and what they tell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from kdcli.files import atomic
from kdcli.models.hf import quiet

TIMING = ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
"""What the Trainer adds to the dev scores."""


def states(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the Trainer's state of each whole checkpoint, by its update; it is what the Trainer writes last."""
    found = {}
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        try:
            found[int(path.parent.name.removeprefix("checkpoint-"))] = json.loads(path.read_text("utf-8"))
        except ValueError:
            continue
    return found


def best_update(folder: Path) -> int | None:
    """Return the update whose checkpoint is the best on dev; None before the first evaluation."""
    found = states(folder)
    return found[max(found)]["best_global_step"] if found else None


def scores(folder: Path, update: int, metric: str) -> tuple[float, dict[str, float]]:
    """Return the epoch of a checkpoint, and its dev scores."""
    history = states(folder)[update]["log_history"]
    point = next(point for point in history if point["step"] == update and f"eval_{metric}" in point)
    named = {name.removeprefix("eval_"): value for name, value in point.items() if name.startswith("eval_")}
    return point["epoch"], {name: value for name, value in named.items() if name not in TIMING}


def keep(folder: Path, update: int, tokenizer: Any) -> None:
    """Make ``folder / "model"`` of a checkpoint: what loading a model needs, and nothing else."""
    checkpoint = folder / f"checkpoint-{update}"
    with quiet(), atomic(folder / "model") as temporary:
        temporary.mkdir()
        for file in [*checkpoint.glob("*config.json"), *checkpoint.glob("*.safetensors*")]:
            shutil.copy(file, temporary)
        tokenizer.save_pretrained(temporary)


def remove(folder: Path) -> None:
    """Remove all checkpoints."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
