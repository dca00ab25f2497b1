"""The card of a student: what it is, how good, how large, how it was made, and how it is used."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from kdcli.api import Task
from kdcli.tasks.metrics import metric_title

PACKAGES = ("kdcli", "torch", "tokenizers", "safetensors", "numpy")
TEMPLATE = Path(__file__).with_name("card.md")


def student_card(
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    task: Task,
    size: int,
    *,
    made: Mapping[str, str] | None = None,
    on_hub: str = "",
    data: Mapping[str, Any] | None = None,
) -> str:
    """Fill in the card from a student's ``config.json`` and ``metrics.json``; a missing value is a ``KeyError``.

    ``size`` are the bytes of the weights, ``made`` more facts of how it was made, by default the versions of now.
    ``on_hub``, its name there, adds how it is used from there; ``data`` are more fields of the part for machines.
    """
    tags = ["knowledge-distillation", config["plugin"], task.name]
    fields = {"tags": tags, "metrics": [task.metric], "pipeline_tag": "text-classification", **(data or {})}
    if made is None:
        versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
        made = {"versions": ", ".join(versions)}
    against = "" if config.get("gold", True) else " against the teacher's answers"
    sizes = {
        **{f"dev {metric_title(task, name)}{against}": f"{value:.4f}" for name, value in metrics["dev"].items()},
        "parameters": f"{metrics['parameters']:,}",
        "parameters without embeddings": f"{metrics['parameters_without_embeddings']:,}",
        "size of the weights": f"{size / 1e6:.1f} MB",
    }
    training = config["training"]
    temperature = f" at temperature {training['temperature']:g}" if training["kd_loss"] == "kl" else ""
    distillation = f"{training['kd_loss'].upper()} with the teacher's logits{temperature}"
    losses = {distillation: training["kd_weight"], "label loss": training["ce_weight"]}
    # A student of an earlier version has no such setting, and the vectors of a text file have no pieces.
    cut = training.get("word_pieces") and (config["vectors"] or "").startswith("encoder ")
    words = "words and pieces of words" if cut else "words"
    facts = {
        "student": f"{config['plugin']} ({', '.join(f'{name} {value}' for name, value in config['options'].items())})",
        "loss": " + ".join(f"{weight:g} x {name}" for name, weight in losses.items() if weight),
        "optimiser": f"{training['optimizer']}, lr {training['lr']:g}, batches of {training['batch_size']}",
        "training": f"{metrics['updates']:,} updates over {config['rows']:,} rows, seed {config['seed']}; the best dev "
        f"{metric_title(task, task.metric)} came after {metrics['best_update']:,}",
        "vocabulary": f"{config['vocabulary_size']:,} {words}, {'lower-cased' if training['lowercase'] else 'cased'}",
        "word vectors": config["vectors"] or "random",
        **({"thresholds": ", ".join(map("{} {:.3f}".format, task.labels, task.thresholds))} if task.thresholds else {}),
        **made,
    }
    values: dict[str, Any] = {"task": task, "summary": summary(task), "config": config, "sizes": sizes, "made": facts}
    values |= {"distilled": training["kd_weight"] > 0, "on_hub": on_hub}
    card = ModelCard.from_template(ModelCardData(library_name="kdcli", **fields), template_path=str(TEMPLATE), **values)
    return f"{card}\n"


def summary(task: Task) -> str:
    """Say what a student of the task reads and returns."""
    between = ", " if task.multi_label else " or "
    answer = "a score" if task.is_score else between.join(f"`{label}`" for label in task.labels)
    answer = f"any number of {answer}" if task.multi_label else answer
    if task.names:
        answer += f" ({', '.join(task.names)})"
    return f"Reads {'one text' if task.kind == 'single' else 'two texts'} and answers {answer}."
