"""A student as the Hugging Face Hub wants it: a folder to upload as it is, with a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from kdcli.api import Reporter, Task
from kdcli.config.schema import TaskSettings
from kdcli.download.sources import SOURCES
from kdcli.errors import DataError
from kdcli.export.card import description, onnx_use, tags
from kdcli.export.exported import refuse_output
from kdcli.export.onnx import OnnxExport, export_onnx
from kdcli.files import atomic
from kdcli.student.folder import load_student
from kdcli.student.loaded import WEIGHTS
from kdcli.student.vocabulary import FILE as TOKENIZER

COPIED = (WEIGHTS, TOKENIZER, "labels.json", "metrics.json")
ONNX = "onnx"
METRICS = {"mcc": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
"""What the Hub calls metrics, where it is not what kd does."""


@dataclass(frozen=True)
class HubFolder:
    """What was exported.

    Attributes:
        folder: Where it lies.
        task: The name of the task.
        bytes: The size of each file.
        onnx: What was exported as ONNX, if that was asked for.
    """

    folder: Path
    task: str
    bytes: dict[str, int]
    onnx: OnnxExport | None


@dataclass(frozen=True)
class Origin:
    """What a student's folder does not tell.

    Attributes:
        licence: As the Hub names it.
        language: Of the texts, as ISO 639 has it.
        dataset: The name on the Hub of what it was trained on; None: what is known of the task.
        teacher: Its teacher.
        transfer: How its transfer set was made.
    """

    licence: str = "unknown"
    language: str = "en"
    dataset: str | None = None
    teacher: str = ""
    transfer: str = ""


def export_hub_folder(
    *,
    student: Path,
    output: Path,
    origin: Origin | None = None,
    onnx: bool = False,
    dev: TaskSettings | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> HubFolder:
    """Write a student's folder for the Hub, whole or not at all; what it tells of this machine's folders is left out.

    Args:
        student: The student's folder.
        output: The folder to write.
        origin: What the card says that the folder does not tell.
        onnx: Put the student as ONNX into a folder inside.
        dev: What ``export_onnx`` compares on.
        force: Replace an earlier export.
        reporter: Shows the progress.

    Raises:
        DataError: The folder is not a student's, or the output exists.
        UsageError: The output and the student's folder overlap.
        KdError: As ``export_onnx``.
    """
    refuse_output(output, student, force=force)
    loaded = load_student(student)
    config, task = without_folders(loaded.config), loaded.task
    with atomic(output) as folder:
        folder.mkdir()
        for name in COPIED:
            shutil.copyfile(student / name, folder / name)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        exported = None
        if onnx:
            made = export_onnx(student=student, output=folder / ONNX, dev=dev, reporter=reporter)
            exported = replace(made, folder=output / ONNX)
        size = (folder / WEIGHTS).stat().st_size
        text = hub_card(config, loaded.metrics, task, size, origin or Origin(), onnx=onnx)
        (folder / "README.md").write_text(text, "utf-8")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return HubFolder(output, task.name, sizes, exported)


def hub_card(
    config: Mapping[str, Any], metrics: Mapping[str, Any], task: Task, size: int, origin: Origin, *, onnx: bool
) -> str:
    """Fill in the card as the Hub reads it.

    Args:
        config: The student's ``config.json``.
        metrics: Its ``metrics.json``.
        task: Its task.
        size: Bytes of its weights.
        origin: What these do not tell.
        onnx: Whether there is a folder with the student as ONNX.

    Raises:
        DataError: The student's files lack something.
    """
    told = {"kd": str(config.get("kd", ""))}
    if config.get("training", {}).get("kd_weight"):  # a baseline of the same run has no teacher
        told = {"teacher": _name(origin.teacher), "transfer set": origin.transfer, **told}
    try:
        about = description(config, metrics, task, size, {name: value for name, value in told.items() if value})
        front = _front(config, metrics, task, origin)
    except (KeyError, TypeError) as error:
        hint = "train it again, or take the folder that `kd student` has written"
        raise DataError(f"config.json or metrics.json of the student is not whole: {error!r}", hint=hint) from error
    text = '"a text"' if task.kind == "single" else '("a text", "another")'
    return f"""---
{front}
---
{about}
## Use

```python
import kdcli  # pip install kdcli
from huggingface_hub import snapshot_download

student = kdcli.load_student(snapshot_download("USER/NAME"))
print(student.predict([{text}]))
```
{_with_onnx(config, task) if onnx else ""}"""


def without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where on this machine the word vectors came from, but not what they are called."""
    training = config.get("training", {})
    vectors = config.get("vectors")
    kind, _, source = (vectors or "").partition(" ")
    return {
        **config,
        "vectors": vectors and f"{kind} {_name(source)}",
        "training": {**training, "vectors": _name(training.get("vectors", ""))},
    }


def _front(config: Mapping[str, Any], metrics: Mapping[str, Any], task: Task, origin: Origin) -> str:
    """Return what machines read of the card, as YAML."""
    known = {source.name: source.address for source in SOURCES if source.kind == "task"}
    dataset = origin.dataset or known.get(task.name)
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=dataset or task.name,
            dataset_name=task.name,
            dataset_config=task.name if dataset and not origin.dataset and "glue" in dataset else None,
            dataset_split="validation",
            metric_type=METRICS.get(metric, metric),
            metric_value=round(value, 4),
        )
        for metric, value in metrics["dev"].items()
    ]
    card = ModelCardData(
        license=origin.licence,
        language=origin.language,
        library_name="kdcli",
        pipeline_tag="text-classification",
        tags=tags(config, task),
        datasets=[dataset] if dataset else None,
        metrics=[METRICS.get(metric, metric) for metric in (task.metric, *task.more_metrics)],
        model_name=f"{task.name}-{config['plugin']}",
        eval_results=results,
    )
    text: str = card.to_yaml()
    return text


def _with_onnx(config: Mapping[str, Any], task: Task) -> str:
    return f"""
The folder `{ONNX}` holds the same as ONNX, in float32 and with 8-bit weights; onnxruntime and tokenizers are enough:

{onnx_use(config, task, f"{ONNX}/")}"""


def _name(source: str) -> str:
    """Return the last part of a path on this machine; the name of something on the Hub stays what it is."""
    path = Path(source)
    return path.name if path.is_absolute() or source.startswith(("~", ".")) else source
