"""A Hugging Face model with a head for classes or a score: texts in, its outputs out. Teacher plugins build on it."""

import hashlib
import inspect
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from kdcli.api import MASK, QuietReporter, Reporter
from kdcli.errors import DataError, first_line
from kdcli.models import hf
from kdcli.models.adapter import base_of, merge_adapter

LongTexts = Literal["cut", "mean", "max"]
"""What happens to a text that is too long: it is cut, or the mean or the largest output of its windows is taken."""
_FINE_TUNE = "fine-tune it first (kd teacher train; in kd run-all teacher.train = true), or name a classifier"
_OVERLAP = 1 / 4  # the share of a window that the next one begins with


@dataclass
class Classifier:
    """A classifier with its tokenizer; its size and its kind are attributes, as of ``kdcli.api.LoadedTeacher``."""

    folder: Path  # the folder of its files
    model: Any  # the Hugging Face model, on its device
    tokenizer: Any  # its tokenizer
    labels: tuple[str, ...]  # the name of each output, ``LABEL_0`` and so on where it has none; empty for a score
    max_length: int  # the longest input in word pieces, special tokens included
    inputs: list[str]  # the tokenizer's outputs that the model takes
    long_texts: LongTexts = "cut"  # what happens to a longer text
    # which text of a pair is cut, as tokenizers call it
    truncation: Literal["longest_first", "only_first"] = "longest_first"
    pairs_only: bool = False  # whether single texts are refused
    base: Path | None = None  # the folder of the base model, where ``folder`` holds an adapter
    reporter: Reporter = field(default_factory=QuietReporter, init=False)  # shows how far it is in many texts
    cut: int = field(default=0, init=False)  # how many texts were longer so far

    def __post_init__(self) -> None:
        """Count the parameters, those outside of embedding tables too, and the 10^6 bytes of the weights on disk."""
        self.folders = [self.folder] if self.base is None else [self.folder, self.base]
        self.parameters, self.parameters_without_embeddings = count_parameters(self.model)
        self.megabytes = hf.weight_megabytes(self.folders)
        self.multi_label = is_multi_label(self.model.config)

    @property
    def device(self) -> str:
        """The device it runs on."""
        return str(self.model.device)

    def fingerprint(self) -> str:
        """Return a hash of its files, those of an adapter's base model included."""
        hashes = [hf.files_sha256(place) for place in self.folders]
        return hashes[0] if self.base is None else hashlib.sha256("".join(hashes).encode()).hexdigest()

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the outputs ``float32 [texts, outputs]`` of texts, or of pairs in two columns.

        The texts go through the model in batches of about one length, each padded to its longest text; the batch of a
        text changes its outputs by rounding only. ``[MASK]`` becomes the tokenizer's own mask token.
        """
        return self._outputs(columns, batch, states=False)

    def represent(
        self, columns: Sequence[Sequence[str]], batch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the outputs, as ``logits``, and the mean of the last hidden states, ``float32 [texts, hidden]``."""
        both = self._outputs(columns, batch, states=True)
        outputs = self.model.config.num_labels
        return both[:, :outputs], both[:, outputs:]

    @torch.inference_mode()
    def _outputs(self, columns: Sequence[Sequence[str]], batch: int, *, states: bool) -> NDArray[np.float32]:
        """Return the outputs of texts, with the mean of the last hidden states beside them if asked for."""
        if self.pairs_only and len(columns) < 2:
            hint = "a classifier of single texts is read by --set teacher.plugin=transformers"
            raise DataError("a cross-encoder reads pairs of texts", key="teacher.plugin", hint=hint)
        pieces, texts = self._pieces(columns)
        order = np.argsort([-len(ids) for ids in pieces["input_ids"]], kind="stable")  # too little memory shows at once
        found = []
        with (self.reporter if len(order) > batch else QuietReporter()).progress("teacher", len(order), "texts") as bar:
            for start in range(0, len(order), batch):
                found.append(self._forward(pieces, order[start : start + batch], states))
                bar.advance(len(found[-1]))
        outputs = np.empty((len(order), found[0].shape[1] if found else self.model.config.num_labels), np.float32)
        if found:
            outputs[order] = torch.cat(found).float().cpu().numpy()
        if len(texts) == len(columns[0]):
            return outputs
        first = np.flatnonzero(np.diff(texts, prepend=-1))  # the windows of a text follow each other
        if self.long_texts == "max":
            return np.maximum.reduceat(outputs, first)
        sizes = np.diff(first, append=len(texts)).astype(np.float32)[:, None]
        return np.asarray(np.add.reduceat(outputs, first) / sizes, np.float32)

    def _pieces(self, columns: Sequence[Sequence[str]]) -> tuple[dict[str, list[list[int]]], NDArray[np.int64]]:
        """Return the word pieces of each text, or of each of its windows, and the number of the text of each."""
        mask = self.tokenizer.mask_token or self.tokenizer.unk_token or MASK
        windows = self.long_texts != "cut"
        encoded = self.tokenizer(
            *([text.replace(MASK, mask) for text in column] for column in columns),
            truncation="only_first" if windows else self.truncation,
            max_length=self.max_length,
            return_attention_mask=False,
            return_token_type_ids="token_type_ids" in self.inputs,
            **({"return_overflowing_tokens": True, "stride": int(self.max_length * _OVERLAP)} if windows else {}),
        )
        texts = np.array(encoded["overflow_to_sample_mapping"] if windows else range(len(columns[0])), np.int64)
        self.cut += int((np.bincount(texts) > 1).sum()) if windows else count_cut(encoded, self.max_length)
        return {name: encoded[name] for name in self.inputs if name in encoded}, texts

    def _forward(
        self, pieces: Mapping[str, Sequence[Sequence[int]]], rows: NDArray[np.int64], states: bool
    ) -> torch.Tensor:
        """Return the model's outputs for some of the texts, ``[rows, outputs]`` or ``[rows, outputs + hidden]``."""
        pad = transformers.DataCollatorWithPadding(self.tokenizer)
        inputs = pad([{name: values[row] for name, values in pieces.items()} for row in rows])
        try:
            found = self.model(**inputs.to(self.model.device), **({"output_hidden_states": True} if states else {}))
            logits: torch.Tensor = found.logits
            if not states:
                return logits
            present = inputs["attention_mask"].unsqueeze(-1)  # [rows, time, 1]
            hidden = found.get("hidden_states", found.get("decoder_hidden_states"))  # [layers][rows, time, hidden]
            mean = (hidden[-1] * present).sum(dim=1) / present.sum(dim=1)
            return torch.cat([logits, mean], dim=1)
        except (IndexError, RuntimeError, ValueError) as error:
            # Configuration, weights and tokenizer may not belong together; a batch that is too large is another matter.
            if isinstance(error, torch.OutOfMemoryError):
                raise
            if "memory" in str(error):  # the CPU's
                raise torch.OutOfMemoryError(str(error)) from error
            what = f"the teacher cannot read texts of {self.max_length} word pieces: {first_line(error)}"
            hint = "set teacher.max_length to what it can read; or its tokenizer is another model's"
            raise DataError(what, file=self.folder, key="teacher.max_length", hint=hint) from error


def load_classifier(
    name: str | Path,
    *,
    max_length: int = 0,
    long_texts: LongTexts = "cut",
    device: str = "cpu",
    precision: str = "fp32",
    reporter: Reporter,
    key: str = "teacher.model",
) -> Classifier:
    """Load a fine-tuned model or an adapter (LoRA), from a folder or by its hub name.

    ``max_length`` is in word pieces, at most what the model takes, or 0 for that; ``precision`` is that of weights and
    arithmetic; ``key`` is the setting that holds the name, for errors.

    Raises:
        DataError: The folder holds no such model, or one that gives each of its labels a yes or no.
        MissingError: There is no such folder, or the hub has no such model.
    """
    folder = hf.find_model(name, reporter, key=key, adapters=True)
    base = base_of(folder, reporter) if (folder / hf.ADAPTER).is_file() else None
    if not base:
        _check_head(folder)
    tokenizer = hf.load_tokenizer(base if base and not hf.has_tokenizer(folder) else folder, needs=("pad",))
    if base:
        model = merge_adapter(folder, base, precision)
    else:
        auto_class = transformers.AutoModelForSequenceClassification
        model = hf.load_model(folder, auto_class, precision=precision, hint=_FINE_TUNE)
    if tokenizer.mask_token is None:
        reporter.warn(f"the teacher's tokenizer has no mask token: {MASK} is read as {tokenizer.unk_token or 'a word'}")
    config = model.config
    with hf.readable("teacher's configuration or tokenizer", folder):
        labels = _adapter_labels(folder, config.num_labels) if base else label_names(config, folder)
        longest = hf.fit_max_length(max_length, config, tokenizer, key="teacher.max_length", reporter=reporter)
        inputs = input_names(config, tokenizer, inspect.signature(model.forward).parameters)
        if "input_ids" not in inputs:
            file, key = folder / "tokenizer_config.json", "model_input_names"
            raise DataError("the tokenizer gives no input_ids", file=file, key=key)
        fit_padding(config, tokenizer)
        loaded = Classifier(folder, model.to(device), tokenizer, labels, longest, inputs, long_texts, base=base)
        loaded.reporter = reporter
        return loaded


def _check_head(folder: Path) -> None:
    """Raise a ``DataError`` for a model that is no classifier by its configuration."""
    config = hf.load_config(folder)
    with hf.readable("model's configuration", folder):
        heads = list(map(str, config.architectures or []))
    known = type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if not known or (heads and not any("SequenceClassification" in head for head in heads)):
        what = f"the model has no head for classes or a score: it is {', '.join(heads) or config.model_type}"
        raise DataError(what, file=folder / "config.json", key="architectures", hint=_FINE_TUNE)


def fit_padding(config: Any, tokenizer: Any) -> None:
    """Pad a decoder on the right, where its head looks for the last token that is no padding."""
    decoder = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if config.pad_token_id is None or (decoder and not tokenizer.cls_token):  # XLNet's head is at the end: it has one
        config.pad_token_id = tokenizer.pad_token_id
        tokenizer.padding_side = "right"


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Return the number of parameters, and of those outside of embedding tables."""
    every = sum(parameter.numel() for parameter in model.parameters())
    tables = [module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    return every, every - sum(tables)


def label_names(config: Any, folder: Path) -> tuple[str, ...]:
    """Return the name of each output, from ``id2label`` or ``label2id``; nothing for a score.

    Where the two contradict each other, or there are several scores, it is a ``DataError``.
    """
    file, problem = folder / "config.json", config.problem_type
    if problem == "regression" and config.num_labels > 1:
        what = f"the teacher gives {config.num_labels} scores a text"
        hint = "kd distils labels, or one score; if its outputs are classes, remove problem_type"
        raise DataError(what, file=file, key="problem_type", hint=hint)
    if config.num_labels == 1:
        return ()
    numbers = range(config.num_labels)
    by_id = [str(config.id2label[number]) for number in numbers]
    # transformers forgets label2id where there is no id2label.
    own = json.loads(file.read_text("utf-8")).get("label2id") or config.label2id or {}
    found = {number: str(name) for name, number in own.items()}
    by_label = [found.get(number, f"LABEL_{number}") for number in numbers]
    generic = [are_generic(names) for names in (by_id, by_label)]
    if not any(generic) and by_id != by_label:
        what = f"id2label says {', '.join(by_id)}, and label2id says {', '.join(by_label)}"
        raise DataError(what, file=file, key="label2id", hint="correct the one that is wrong")
    return tuple(by_label if generic[0] and not generic[1] else by_id)


def is_multi_label(config: Any) -> bool | None:
    """Return whether a model was trained so that each output is a yes or no of its own; None where it does not say."""
    return None if config.problem_type is None else config.problem_type == "multi_label_classification"


def _adapter_labels(folder: Path, outputs: int) -> tuple[str, ...]:
    """Return the names in an adapter's own config.json, or ``LABEL_0`` and so on: its base's are of another task."""
    file = folder / "config.json"
    if not file.is_file():
        return tuple(f"LABEL_{number}" for number in range(outputs)) if outputs > 1 else ()
    own = transformers.PreTrainedConfig.from_json_file(str(file))  # it may hold the labels alone
    if own.num_labels != outputs:
        what = f"config.json names {own.num_labels} labels, and the adapter's head has {outputs} outputs"
        raise DataError(what, file=file, key="id2label", hint="name each output of the head")
    return label_names(own, folder)


def are_generic(names: Sequence[str]) -> bool:
    """Return whether labels are no names: ``LABEL_0, LABEL_1`` or ``0, 1``, in this order."""
    return all(re.fullmatch(rf"(LABEL_)?{number}", name) for number, name in enumerate(names))


def count_cut(encoded: Any, max_length: int) -> int:
    """Return how many of some encoded texts were cut; of a slow tokenizer's, those that may have been."""
    if encoded.encodings:
        return sum(bool(encoding.overflowing) for encoding in encoded.encodings)
    return sum(len(ids) >= max_length for ids in encoded["input_ids"])


def input_names(config: Any, tokenizer: Any, accepted: Collection[str]) -> list[str]:
    """Return the tokenizer's outputs that a model takes; one kind of text needs no token types."""
    left_out = {"token_type_ids"} if getattr(config, "type_vocab_size", 2) < 2 else set()
    return [name for name in tokenizer.model_input_names if name in accepted and name not in left_out]
