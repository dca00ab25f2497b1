"""A student as the Hugging Face Hub wants it: a folder to upload as it is, with a model card."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import EvalResult, HfApi

from kdcli.api import Task
from kdcli.download.get import SOURCES
from kdcli.errors import DataError, MissingError, first_line
from kdcli.files import CALIBRATION, MARKER, atomic, check_output
from kdcli.student.card import student_card
from kdcli.student.student import FORMAT, WEIGHTS, Student, load_student
from kdcli.student.vocabulary import FILE as TOKENIZER
from kdcli.tasks.metrics import metric_title

METRICS = {
    **{"mcc": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"},
    **{"micro_f1": "f1", "macro_f1": "f1", "subset_accuracy": "accuracy"},
}
"""The Hub's names of metrics, where they are not kd's."""


@dataclass(frozen=True)
class HubFolder:
    """The result of an export: the size of each file."""

    folder: Path
    task: str
    bytes: dict[str, int]


@dataclass(frozen=True)
class Origin:
    """Facts for the card that a student's folder does not hold."""

    licence: str = "unknown"  # as on the Hub
    language: str = "en"  # as in ISO 639
    dataset: str | None = None  # as on the Hub; by default the task's known one
    teacher: str = ""
    transfer: str = ""  # how the transfer set was made
    name: str = "USER/NAME"  # the student's own, on the Hub


def export_hub_folder(*, student: Path, output: Path, origin: Origin | None = None, force: bool = False) -> HubFolder:
    """Write a student's folder for the Hub, whole or not at all, without the paths of this machine."""
    check_output(output, [student], force=force)
    loaded = load_student(student)
    config = {**without_folders(loaded.config), "format": FORMAT}
    with atomic(output) as folder:
        folder.mkdir()
        for name in (WEIGHTS, TOKENIZER, "metrics.json"):
            shutil.copyfile(student / name, folder / name)
        if loaded.calibration:
            loaded.calibration.save(folder / CALIBRATION)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        size = (folder / WEIGHTS).stat().st_size
        card = hub_card(config, loaded.metrics, loaded.task, size, origin or Origin())
        (folder / "README.md").write_text(card, "utf-8")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return HubFolder(output, loaded.task.name, sizes)


def push_to_hub(
    student: Student, name: str, *, private: bool | None = None, token: str | None = None, **card: str
) -> str:
    """Upload a student to the Hub, and return its address there; see ``Student.push_to_hub``."""
    with TemporaryDirectory() as place:
        own, output = Path(place) / "student", Path(place) / "hub"
        replace(student).save(own)
        export_hub_folder(student=own, output=output, origin=Origin(name=name, **card))
        try:
            hub = HfApi(token=token)
            address = str(hub.create_repo(name, private=private, exist_ok=True))
            hub.upload_folder(repo_id=name, folder_path=output, ignore_patterns=[MARKER])
        except Exception as error:  # no network, no such name, or no right to write there
            what = f"the student cannot be uploaded as {name}: {first_line(error)}"
            raise MissingError(what, hint="`hf auth login` takes a token that may write") from error
    return address


def hub_card(config: Mapping[str, Any], metrics: Mapping[str, Any], task: Task, size: int, origin: Origin) -> str:
    """Fill in the card as the Hub reads it."""
    made = {"kd": str(config.get("kd", ""))}
    if config.get("training", {}).get("kd_weight"):  # a baseline of the same run has no teacher
        made = {"teacher": _public_name(origin.teacher), "transfer set": origin.transfer, **made}
    try:
        data, made = _card_data(config, metrics, task, origin), {name: value for name, value in made.items() if value}
        return student_card(config, metrics, task, size, made=made, on_hub=origin.name, data=data)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        hint = "train it again, or take the folder that `kd student` has written"
        raise DataError(f"config.json or metrics.json of the student is not whole: {error!r}", hint=hint) from error


def without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """Remove the folder of the word vectors on this machine from a student's configuration, but keep their name."""
    training = config.get("training", {})
    vectors = config.get("vectors")
    kind, _, source = (vectors or "").partition(" ")
    return {
        **config,
        "vectors": vectors and f"{kind} {_public_name(source)}",
        "training": {**training, "vectors": _public_name(str(training.get("vectors") or ""))},
    }


def _card_data(config: Mapping[str, Any], metrics: Mapping[str, Any], task: Task, origin: Origin) -> dict[str, Any]:
    """Return what the part of the card for machines has beside that of the student's own card."""
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
            metric_name=metric_title(task, metric),
            metric_value=round(value, 4),
        )
        for metric, value in metrics["dev"].items()
        if config.get("gold", True)  # agreement with the teacher is no accuracy
    ]
    return {
        "license": origin.licence,
        "language": origin.language,
        "datasets": [dataset] if dataset else None,
        "metrics": list(dict.fromkeys(METRICS.get(metric, metric) for metric in (task.metric, *task.more_metrics))),
        "model_name": f"{task.name}-{config['plugin']}",
        "eval_results": results or None,
    }


def _public_name(source: str) -> str:
    """Return the last part of a path on this machine; a name on the Hub stays unchanged."""
    path = Path(source)
    return path.name if path.is_absolute() or source.startswith(("~", ".")) else source
