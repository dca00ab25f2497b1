"""The card of a student: what it is, how good, how large, how it was made, and how it is used."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
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
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    return f"""---
library_name: kdcli
pipeline_tag: text-classification
tags: [{", ".join(tags(config, task))}]
metrics: [{task.metric}]
---
{description(config, metrics, task, size, {"versions": ", ".join(versions)})}"""


def tags(config: Mapping[str, Any], task: Task) -> list[str]:
    """Return what a student is found by."""
    return ["knowledge-distillation", config["plugin"], task.name]


def description(
    config: Mapping[str, Any], metrics: Mapping[str, Any], task: Task, size: int, more: Mapping[str, str]
) -> str:
    """Describe a student: the card but for what machines read.

    Args:
        config: The student's ``config.json``.
        metrics: Its ``metrics.json``.
        task: Its task.
        size: Bytes of its weights.
        more: What else is to be said of how it was made, by name.
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
        **more,
    }
    return f"""# {task.name}: a distilled student

{_answer(task)} {_lineage(training)} It predicts with `kd predict`.

{_table(rows, "dev set and size")}

{_table(made, "how it was made")}

Texts longer than {config["max_length"]} words are cut. It knows what its transfer set knows: texts that look different
from the task's are outside of its reach.
"""


def onnx_card(
    config: Mapping[str, Any], task: Task, megabytes: Mapping[str, float], comparisons: Sequence[Mapping[str, Any]]
) -> str:
    """Fill in the card of an exported student.

    Args:
        config: The student's ``config.json``.
        task: Its task.
        megabytes: The size of each graph by its file.
        comparisons: Each graph against PyTorch; the fields of ``kdcli.export.onnx_check.Comparison``.
    """
    sizes = "\n".join(f"| `{file}` | {size:.1f} MB |" for file, size in megabytes.items())
    columns = "words, lengths" if task.kind == "single" else "words1, lengths1, words2, lengths2"
    inputs = ", ".join(f"`{name}`" for name in columns.split(", "))
    return f"""# {task.name}: a distilled student as ONNX

{_answer(task)} It needs onnxruntime and tokenizers alone.

| graph | size |
|---|---|
{sizes}

Inputs: {inputs}; words are `int64 [batch, time]`, padded with 0, lengths `int64 [batch]`, each at least 1. Output:
`logits`, `float32 [batch, {task.outputs}]`. Padding makes no difference; with 8-bit weights a row's logits depend a
little on the other rows, since what passes through is scaled by the batch.

{onnx_use(config, task)}
{_compared(comparisons)}"""


def onnx_use(config: Mapping[str, Any], task: Task, folder: str = "") -> str:
    """Show how an exported student predicts.

    Args:
        config: The student's ``config.json``.
        task: Its task.
        folder: Where it lies, with a slash at the end.
    """
    texts = '{"": "a text"}' if task.kind == "single" else '{"1": "a text", "2": "another"}'
    answer = (
        "print(logits[0, 0])"
        if task.is_score
        else f'print(json.load(open("{folder}labels.json"))["labels"][logits[0].argmax()])'
    )
    library = "" if task.is_score else "import json\n\n"
    return f"""```python
{library}import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{folder}tokenizer.json")
session = InferenceSession("{folder}model.onnx")
inputs = {{}}
for number, text in {texts}.items():
    # A longer text is cut; one without words is an unknown word, 1.
    words = tokenizer.encode(text, add_special_tokens=False).ids[:{config["max_length"]}] or [1]
    inputs |= {{f"words{{number}}": np.array([words]), f"lengths{{number}}": np.array([len(words)])}}
(logits,) = session.run(None, inputs)
{answer}
```
"""


def _compared(comparisons: Sequence[Mapping[str, Any]]) -> str:
    if not comparisons:
        return ""
    rows = []
    for one in comparisons:
        agreement = one["pearson"] if one["same_labels"] is None else one["same_labels"]
        rows.append(
            f"| `{one['file']}` | {one['texts']}, {one['rows']:,} | {one['difference']:.2g} | {agreement:.4f} |"
        )
    measure = "Pearson" if comparisons[0]["same_labels"] is None else "same label"
    head = f"| against PyTorch | texts | largest difference of a logit | {measure} |\n|---|---|---|---|"
    return "\n".join([head, *rows, ""])


def _answer(task: Task) -> str:
    kind = "one text" if task.kind == "single" else "two texts"
    answer = "a score" if task.is_score else " or ".join(f"`{label}`" for label in task.labels)
    if task.names:
        answer += f" ({', '.join(task.names)})"
    return f"Reads {kind} and answers {answer}."


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
