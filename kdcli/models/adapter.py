"""Adapters of PEFT, such as LoRA: small changes of a base model that lies elsewhere, merged into it."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from kdcli.api import Reporter
from kdcli.errors import DataError, MissingError
from kdcli.models.hf import ADAPTER, find_model, load_config, load_model, readable

_PREFIX = "base_model.model."
_PROBE = 9973  # a number of outputs that no other tensor has as its first dimension


def base_of(folder: Path, reporter: Reporter) -> Path:
    """Return the folder of an adapter's base model, fetched if it is on the hub."""
    file, key = folder / ADAPTER, "base_model_name_or_path"
    hint = f"correct {key} in this file: a hub name, or the folder of the model that the adapter was trained on"
    with readable("adapter's configuration", folder):
        name = json.loads(file.read_text("utf-8")).get(key)
    if not name:
        raise DataError("the adapter does not name its base model", file=file, key=key, hint=hint)
    try:
        return find_model(name, reporter, key=key)
    except MissingError as error:
        what = f"the adapter's base model {name!r} is not there: {error.what}"
        raise MissingError(what, file=file, key=key, hint=hint) from error


def merge_adapter(folder: Path, base: Path, precision: str = "fp32") -> Any:
    """Load an adapter's base model as a classifier, in evaluation mode on the CPU, and merge the adapter into it.

    The number of outputs is that of the head in the adapter's file: the base model's head was made for another task.

    Raises:
        DataError: The adapter holds no head, does not fit the base model, or cannot be merged into it.
        MissingError: PEFT is not installed.
    """
    try:
        from peft import PeftConfig, PeftModel, load_peft_weights
    except ImportError as error:
        what = "this folder holds an adapter (LoRA), and the library peft is not installed"
        raise MissingError(what, file=folder, hint="pip install 'kdcli[peft]'") from error
    with readable("adapter", folder):
        kind = PeftConfig.from_pretrained(str(folder))
        if kind.is_prompt_learning:
            what = f"an adapter of the kind {kind.peft_type.value} cannot be merged into its base model"
            raise DataError(what, file=folder / ADAPTER, key="peft_type", hint="kd reads LoRA and its relatives")
        weights = load_peft_weights(str(folder), "cpu")  # by their names in the base model
        shapes = {name.removeprefix(_PREFIX): list(tensor.shape) for name, tensor in weights.items()}
    outputs = _outputs(shapes, base, folder)
    names = {number: f"LABEL_{number}" for number in range(outputs)}  # the base's names are those of another task
    config = load_config(base, num_labels=outputs, id2label=names, problem_type=None)
    hint = "neither the base model nor the adapter holds them: train it again with them in modules_to_save"
    how: dict[str, Any] = {"config": config, "precision": precision, "allow_new": frozenset(shapes), "hint": hint}
    model = load_model(base, AutoModelForSequenceClassification, **how)
    with readable("adapter", folder):
        _resize(model, shapes)
        adapted = PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
        read = adapted.load_adapter(str(folder), "default", torch_device="cpu")
        if wrong := sorted({*read.missing_keys, *read.unexpected_keys}):
            what = f"the adapter does not fit its base model: {len(wrong)} tensors are missing or unknown: {wrong[0]}"
            raise DataError(what, file=folder, hint=f"see base_model_name_or_path in {ADAPTER}: it names {base}")
        return adapted.merge_and_unload().eval()


def _outputs(shapes: dict[str, list[int]], base: Path, folder: Path) -> int:
    """Return the number of outputs of the head in an adapter's file: as a whole, or as a change of the base's."""
    config = load_config(base, num_labels=_PROBE)
    with readable("base model's configuration", base), torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    heads = [name for name, tensor in model.named_parameters() if tensor.ndim == 2 and len(tensor) == _PROBE]
    for head in heads:
        for name in (head, head.removesuffix("weight") + "lora_B.weight"):
            if name in shapes:
                return shapes[name][0]
    module = heads[0].split(".")[0] if heads else "classifier"
    what = f"the adapter does not hold the head that was trained with it ({module}): its base's would answer instead"
    hint = f'train it again with task_type="SEQ_CLS" and modules_to_save=["{module}"], or save the merged model'
    raise DataError(what, file=folder, key="modules_to_save", hint=hint)


def _resize(model: Any, shapes: dict[str, list[int]]) -> None:
    """Give a base model the rows for the tokens that its adapter's training added, such as one for padding."""
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    for saved in ("weight", "token_adapter.base_layer.weight"):
        rows = shapes.get(f"{name}.{saved}", [len(table.weight)])[0]
        if rows != len(table.weight):
            model.resize_token_embeddings(rows, mean_resizing=False)
            return
