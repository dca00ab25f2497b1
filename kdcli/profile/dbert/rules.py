"""What becomes of the keys of d-bert's configs whose value cannot stand in a profile as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdcli.profile.dbert.config import Config
from kdcli.profile.dbert.keys import ANY_TEXTS, GOOGLE, KEYS

Outcome = tuple[dict[str, Any], str]
"""The settings that a key becomes, none if it is dropped; and why it is not kept as it is, empty if it is."""

SLOWEST = 0.1
"""A learning rate below it was meant for Adam: AdaDelta hardly moves there."""
LOOSEST = 1000.0
"""No gradient has this norm: clipping it there does nothing."""


def become(key: str, value: Any, config: Config) -> Outcome:
    """Return what becomes of a key.

    Args:
        key: The key, which d-bert may not know.
        value: Its value, of the key's type or null.
        config: The config.
    """
    if key not in KEYS:
        return {}, "d-bert has no such key"
    if value is None:
        return {}, "null is no value"
    if key in _RULES:
        return _RULES[key](value, config)
    known = KEYS[key]
    return ({known.setting: value}, "") if known.setting else ({}, known.why)


def remarks(config: Config) -> list[str]:
    """Return what else a profile does otherwise than d-bert."""
    told = []
    if not config.profile:
        told.append("Fill in [task]: `kd profile show custom` has an example.")
    elif config.named not in ("", config.profile):
        told.append(f"Its data set is that of {config.profile}, though it is called {config.path.name}.")
    if config.of_teacher and not config.of_export:
        told.append(
            "d-bert gives its optimiser the classifier's head alone, and on one GPU nothing: kd trains the encoder too."
        )
    if config.profile == "mnli":
        told += [
            "Each script of d-bert has its own number of logits (distill_birnn two): kd reads one for each label.",
            "d-bert numbers MNLI contradiction, entailment, neutral: for its logits put task.labels in that order.",
        ]
    return told


def _dataset_name(value: str, config: Config) -> Outcome:
    if config.profile:
        return {"extends": config.profile}, ""
    return {"extends": "base"}, "kd has no profile of that name"


def _task_name(value: str, config: Config) -> Outcome:
    if config.profile:
        why = f"the name {config.path.name} tells the task" if value.lower() in ANY_TEXTS else ""
        return {"extends": config.profile}, why
    task: dict[str, Any] = {"task.name": config.path.stem, "task.kind": "pair" if "pair" in value else "single"}
    return {"extends": "base", **task, **_labels(config)}, "kd has no profile of that name"


def _labels(config: Config) -> dict[str, Any]:
    count = config.values.get("n_labels") or 0
    if count < 2:
        return {}
    return {"task.labels": [str(label) for label in range(count)], "task.metric": "accuracy"}


def _n_labels(value: int, config: Config) -> Outcome:
    return {}, "the labels of the task say so"


def _folder(value: str, config: Config) -> Outcome:
    if config.of_export:
        return {}, f"give the texts with kd teacher export --input {value}/train.tsv"
    if Path(value).expanduser().is_dir():
        return {"task.data_dir": value}, ""
    return {}, "there is no such folder here: give one with --data-dir"


def _train_file(value: str, config: Config) -> Outcome:
    if config.of_teacher:
        return {}, "d-bert reads it nowhere"
    place = Path(str(config.values.get("dataset_path") or "")) / value
    return {}, f"it is d-bert's joined set: kd student --input {place}"


def _split_file(split: str) -> Callable[[str, Config], Outcome]:
    def rule(value: str, config: Config) -> Outcome:
        return {}, f"kd finds {split}.tsv by its name" if value == f"{split}.tsv" else f"kd wants it called {split}.tsv"

    return rule


def _vectors(value: str, config: Config) -> Outcome:
    file = Path(str(config.values.get("vectors_dir") or "")) / value
    if config.values.get("mode") == "rand":
        return {}, "mode is rand: d-bert uses no vectors"
    if file.expanduser().is_file():
        return {"student.vectors": str(file)}, ""
    return {}, "there is no such file here: name one in student.vectors (kd data get)"


def _vectors_dir(value: str, config: Config) -> Outcome:
    return {}, "it is the folder of vectors_file"


def _mode(value: str, config: Config) -> Outcome:
    random: dict[str, Any] = {"student.vectors": ""} if value == "rand" else {}
    return {"students.bilstm.embeddings": value, **random}, ""


def _rnn_type(value: str, config: Config) -> Outcome:
    return {"students.bilstm.cell": value.lower()}, ""


def _use_maxpool(value: bool, config: Config) -> Outcome:
    if not value:
        return {"students.bilstm.pooling": "last"}, ""
    return {"students.bilstm.pooling": "max"}, "d-bert pools the BiLSTM's padded inputs; kd pools its states"


def _optimizer(value: str, config: Config) -> Outcome:
    why = "" if value.lower() == "adadelta" else "d-bert reads it nowhere, and trains with AdaDelta"
    return {"student.optimizer": "adadelta"}, why


def _lr(value: float, config: Config) -> Outcome:
    if value >= SLOWEST:
        return {"student.lr": float(value)}, ""
    return {"student.lr": 1.0}, "the paper's rate for AdaDelta, which hardly moves at d-bert's"


def _weight_decay(value: float, config: Config) -> Outcome:
    return {"student.weight_decay": 0.0}, "d-bert reads it nowhere" if value else ""


def _clip_grad(value: float, config: Config) -> Outcome:
    if value < LOOSEST:
        return {"student.clip": float(value)}, ""
    return {"student.clip": 0.0}, "no gradient is that large: d-bert clips nothing"


def _early_stop(value: bool, config: Config) -> Outcome:
    if value:
        return {}, "d-bert reads it nowhere; student.patience of the profile stops early"
    return {"student.patience": 0}, ""


def _ce_lambda(value: float, config: Config) -> Outcome:
    # d-bert's own default, which is in all of its configs; without distillation the labels are all there is.
    if value == 1 and config.values.get("distill_lambda") != 0:
        return {"student.ce_weight": 0.0}, "the paper's alpha is 0: logits alone"
    return {"student.ce_weight": float(value)}, ""


def _distill_temperature(value: float, config: Config) -> Outcome:
    return (
        {},
        f"distill_birnn ignores it, and the paper's squared error has none; with student.kd_loss=kl: -T {value:g}",
    )


def _device(value: str, config: Config) -> Outcome:
    if value == "cuda:0":
        return {"device": "auto"}, "a GPU where there is one"
    return {"device": value}, ""


def _no_cuda(value: bool, config: Config) -> Outcome:
    return ({"device": "cpu"}, "") if value else ({}, "kd takes a GPU where there is one")


def _fp16(value: bool, config: Config) -> Outcome:
    return {"precision": "fp16" if value else "fp32"}, ""


def _workspace(value: str, config: Config) -> Outcome:
    if config.of_export:
        return {"teacher.model": value}, ""
    return {}, f"name the run folder with --run-dir {value}"


def _model_file(value: str, config: Config) -> Outcome:
    hub = GOOGLE.get(Path(value).name)
    model, why = value, ""
    if hub and not Path(value).expanduser().is_dir():
        model, why = hub, "the Hub's name of it; there is no such folder here"
    if not config.of_export:
        return {"teacher.model": model}, why
    # A teacher that is fine-tuned already has no pretrained vectors.
    why = """the teacher was made from it; put its vocab.txt, and "model_type": "bert" in config.json, into workspace"""
    return {"student.vectors": model}, why


def _train(value: bool, config: Config) -> Outcome:
    why = "d-bert exports with --no_train" if value == config.of_export else ""
    return {"teacher.train": not config.of_export}, why


def _test_only(value: bool, config: Config) -> Outcome:
    return ({"teacher.train": False}, "") if value else ({}, "teacher.train says so")


_RULES: dict[str, Callable[[Any, Config], Outcome]] = {
    "dataset_name": _dataset_name,
    "dataset_path": _folder,
    "data_dir": _folder,
    "train_file": _train_file,
    "dev_file": _split_file("dev"),
    "test_file": _split_file("test"),
    "vectors_file": _vectors,
    "vectors_dir": _vectors_dir,
    "mode": _mode,
    "rnn_type": _rnn_type,
    "use_maxpool": _use_maxpool,
    "optimizer": _optimizer,
    "lr": _lr,
    "weight_decay": _weight_decay,
    "clip_grad": _clip_grad,
    "early_stop": _early_stop,
    "ce_lambda": _ce_lambda,
    "distill_temperature": _distill_temperature,
    "device": _device,
    "no_cuda": _no_cuda,
    "fp16": _fp16,
    "workspace": _workspace,
    "task_name": _task_name,
    "n_labels": _n_labels,
    "model_file": _model_file,
    "do_train": _train,
    "do_test_only": _test_only,
}
