"""The card of a student: what it is, how good, how large, and how it was made."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from kdcli.api import Task

PACKAGES = ("kdcli", "torch", "tokenizers", "safetensors", "numpy")


def card(config: Mapping[str, Any], metrics: Mapping[str, Any], task: Task, size: int) -> str:
    """Fill in the card.

    Args:
        config: The student's ``config.json``.
        metrics: Its ``metrics.json``.
        task: Its task.
        size: Bytes of its weights.
    """
    training = config["training"]
    rows = {
        **{f"dev {name}": f"{value:.4f}" for name, value in metrics["dev"].items()},
        "parameters": f"{metrics['parameters']:,}",
        "parameters without embeddings": f"{metrics['parameters_without_embeddings']:,}",
        "size of the weights": f"{size / 1e6:.1f} MB",
    }
    made = {
        "student": f"{config['plugin']} ({_listed(config['options'])})",
        "loss": _loss(training),
        "optimiser": f"{training['optimizer']}, lr {training['lr']:g}, batches of {training['batch_size']}",
        "training": f"{metrics['updates']:,} updates over {config['rows']:,} rows, seed {config['seed']}; the best dev "
        f"{task.metric} came after {metrics['best_update']:,}",
        "vocabulary": f"{config['vocabulary_size']:,} words, {'lower-cased' if training['lowercase'] else 'cased'}",
        "word vectors": config["vectors"] or "random",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
        ),
    }
    kind = "one text" if task.kind == "single" else "two texts"
    answer = "a score" if task.is_score else " or ".join(f"`{label}`" for label in task.labels)
    if task.names:
        answer += f" ({', '.join(task.names)})"
    return f"""---
library_name: kdcli
pipeline_tag: text-classification
tags: [knowledge-distillation, {config["plugin"]}, {task.name}]
metrics: [{task.metric}]
---
# {task.name}: a distilled student

Reads {kind} and answers {answer}. {_lineage(training)} It predicts with `kd predict`.

{_table(rows, "dev set and size")}

{_table(made, "how it was made")}

Texts longer than {config["max_length"]} words are cut. It knows what its transfer set knows: texts that look different
from the task's are outside of its reach.
"""


def _loss(training: Mapping[str, Any]) -> str:
    temperature = f" at temperature {training['temperature']:g}" if training["kd_loss"] == "kl" else ""
    parts = {
        f"{training['kd_loss'].upper()} with the teacher's logits{temperature}": training["kd_weight"],
        "label loss": training["ce_weight"],
    }
    return " + ".join(f"{weight:g} x {name}" for name, weight in parts.items() if weight)


def _lineage(training: Mapping[str, Any]) -> str:
    return (
        "Distilled from a teacher's logits." if training["kd_weight"] else "Trained on labels alone, without a teacher."
    )


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _table(rows: Mapping[str, str], title: str) -> str:
    return "\n".join([f"| {title} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
