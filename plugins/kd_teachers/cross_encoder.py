"""A cross-encoder of Sentence Transformers: a model that reads both texts of a pair at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from kd_teachers import sentences
from kdcli.api import API_VERSION, DataError

if TYPE_CHECKING:
    from kdcli.api import Reporter

api_version = API_VERSION


class Options(BaseModel):
    """The table ``[teachers.cross-encoder]`` of a profile: there is nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def load(
    model: str,
    options: Options,
    *,
    labels: tuple[str, ...],
    max_length: int,
    long_texts: str,
    device: str,
    precision: str,
    reporter: Reporter,
) -> sentences.SentenceTeacher:
    """Load the model; see ``kdcli.api.TeacherPlugin``."""
    import torch

    from kdcli.models.classifier import fit_padding, is_multi_label, label_names
    from kdcli.models.hf import DTYPES, fit_max_length, readable

    library = sentences.library("sentence-transformers")
    folder = sentences.find(model, long_texts, reporter)
    with readable("cross-encoder", folder):
        loaded = library.CrossEncoder(
            str(folder),
            device=device,
            activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": DTYPES[precision]},
            local_files_only=True,
        ).eval()
        written = json.loads((folder / "config.json").read_text("utf-8"))
    head = type(loaded.transformers_model).__name__
    if head not in (written.get("architectures") or [head]):  # the library starts a new head at random
        what = f"this model has no head that scores pairs: it is a {', '.join(written['architectures'])}"
        raise DataError(what, file=folder, key="teacher.model", hint="name a cross-encoder, or fine-tune it to one")
    config = loaded.transformers_model.config
    if head.endswith("ForSequenceClassification"):  # a generative reranker is padded on the left, as it must be
        fit_padding(config, loaded.tokenizer)
    longest = fit_max_length(max_length, config, loaded.tokenizer, key="teacher.max_length", reporter=reporter)
    loaded.max_seq_length = longest
    if loaded.num_labels == 1:
        names: tuple[str, ...] = ()
    elif loaded.num_labels == config.num_labels:
        names = label_names(config, folder)
    else:
        names = tuple(f"LABEL_{number}" for number in range(loaded.num_labels))

    def read(columns: list[list[str]], batch: int) -> Any:
        """Return the head's raw outputs.

        The library applies a function to them that its own settings name, by default a sigmoid to a single output, and
        takes no notice of ``problem_type`` in ``config.json``. Here it applies none.
        """
        if len(columns) < 2:
            hint = "a classifier of single texts is read by --set teacher.plugin=transformers"
            raise DataError("a cross-encoder reads pairs of texts", key="teacher.plugin", hint=hint)
        pairs = [list(pair) for pair in zip(*columns, strict=True)]
        raw = {"activation_fn": torch.nn.Identity(), "apply_softmax": False}
        return loaded.predict(pairs, batch_size=batch, show_progress_bar=False, **raw)

    return sentences.SentenceTeacher(names, folder, loaded, longest, read, is_multi_label(config))
