"""A model of setfit: a Sentence Transformer, and a classifier of scikit-learn or PyTorch on its embeddings."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from kdcli.api import API_VERSION, MASK, DataError, MissingError, ProfileError, Reporter

api_version = API_VERSION
HEAD = "model_head.pkl"
_LEAST = 1e-7  # the smallest probability whose logarithm is taken


class Options(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The table ``[teachers.setfit]`` of a profile."""

    trust: bool = False
    """Read the head, a pickle file: its author can run any code on this machine."""


@dataclass
class SetFit:
    """A loaded model."""

    labels: tuple[str, ...]
    folders: list[Path]  # its own, and those of its modules
    body: Any  # the Sentence Transformer
    head: Callable[[NDArray[np.float32]], NDArray[np.float32]]  # from embeddings to logits
    max_length: int
    normalize: bool  # whether embeddings are brought to length 1
    cut: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Count what the model consists of."""
        from kdcli.models.classifier import count_parameters
        from kdcli.models.hf import weight_megabytes

        self.parameters, self.parameters_without_embeddings = count_parameters(self.body)
        self.megabytes = weight_megabytes(self.folders)

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the logits, ``float32 [texts, outputs]``; kd's mask token becomes the tokenizer's own."""
        from kdcli.models.classifier import count_cut

        if len(columns) > 1:
            raise DataError("a model of setfit reads one text a row, not pairs", key="teacher.plugin")
        tokenizer = self.body.tokenizer
        mask = tokenizer.mask_token or tokenizer.unk_token or MASK
        texts = [text.replace(MASK, mask) for text in columns[0]]
        how = {"normalize_embeddings": self.normalize, "show_progress_bar": False}
        found = self.head(np.asarray(self.body.encode(texts, batch_size=batch, **how), np.float32))
        self.cut += count_cut(tokenizer(texts, truncation=True, max_length=self.max_length), self.max_length)
        return found.reshape(len(texts), -1)

    def fingerprint(self) -> str:
        """Return a hash of all files of the model."""
        from kdcli.models.hf import files_sha256

        return sha256("\n".join(files_sha256(place) for place in self.folders).encode()).hexdigest()


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
) -> SetFit:
    """Load the model; see ``kdcli.api.TeacherPlugin``."""
    from kdcli.models.hf import DTYPES, find_model, fit_max_length, readable

    if long_texts != "cut":
        what = "a model of setfit cuts long texts, and has no windows"
        raise ProfileError(what, key="teacher.long_texts", hint='set it to "cut"')
    folder = find_model(model, reporter, more=("*/config.json", "*/model.safetensors", "*/pytorch_model.bin", HEAD))
    file = folder / HEAD
    if not file.is_file():
        what = f"this folder holds no model of setfit: {HEAD} is missing"
        raise DataError(what, file=folder, key="teacher.model", hint="name the folder that save_pretrained wrote")
    if not options.trust:
        what = "the head of this model is a pickle file, which can run any code on this machine"
        hint = "if you trust its author: --set teachers.setfit.trust=true"
        raise ProfileError(what, file=file, key="teachers.setfit.trust", hint=hint)
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        what, hint = "this teacher needs the library sentence-transformers", "pip install 'kdcli[setfit]'"
        raise MissingError(what, key="teacher.plugin", hint=hint) from error
    with readable("model of setfit", folder):
        how: dict[str, Any] = {"device": device, "model_kwargs": {"dtype": DTYPES[precision]}, "local_files_only": True}
        body: Any = SentenceTransformer(str(folder), **how).eval()
        settings = folder / "config_setfit.json"
        written = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}
        inside = [folder / module["path"] for module in json.loads((folder / "modules.json").read_text("utf-8"))]
    names, head = _head(_unpickled(file), written.get("labels") or [], file)
    config = body.transformers_model.config
    longest = fit_max_length(max_length, config, body.tokenizer, key="teacher.max_length", reporter=reporter)
    body.max_seq_length = longest
    return SetFit(names, sorted({folder, *inside}), body, head, longest, bool(written.get("normalize_embeddings")))


def _unpickled(file: Path) -> Any:
    """Read the head, on the CPU: it is small."""
    import joblib

    from kdcli.models.hf import readable

    try:
        with readable("head", file):
            return joblib.load(file)
    except DataError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            what = f"the head of this model needs a library: {error.__cause__}"
            raise MissingError(what, file=file, hint="pip install 'kdcli[setfit]'") from error
        raise


def _head(head: Any, labels: Sequence[str], file: Path) -> tuple[tuple[str, ...], Callable[[Any], NDArray[np.float32]]]:
    """Return the labels of a head in the order of its outputs, and the function from embeddings to logits.

    The softmax of the logits gives the head's probabilities. ``labels`` are names of classes that are numbers; the
    outputs of scikit-learn's are in the order of ``classes_``, whatever the order of ``labels``.
    """
    import torch

    own = isinstance(head, torch.nn.Module)
    classes = list(range(head.out_features)) if own else getattr(head, "classes_", None)
    many = head.multitarget if own else isinstance(classes, list) or getattr(head, "multilabel_", False)
    if many:  # rows of its probabilities do not sum to 1
        what = "this model is multi-label: each of its outputs is a yes or no of its own"
        hint = "kd distils one label a text; use a model that was trained for that"
        raise DataError(what, file=file, key="teacher.model", hint=hint)
    if classes is None or not (hasattr(head, "decision_function") or hasattr(head, "predict_proba")):
        raise DataError(f"the head is no classifier: {type(head).__name__}", file=file, key="teacher.model")
    known, each = dict(enumerate(labels)), np.asarray(classes).tolist()
    names = [one if isinstance(one, str) else known.get(int(one), str(int(one))) for one in each]
    return tuple(names), partial(_own_logits if own else _sklearn_logits, head)


def _own_logits(head: Any, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits of setfit's own head."""
    import torch

    with torch.inference_mode():
        logits: NDArray[np.float32] = head(torch.from_numpy(vectors).to(head.device))[0].cpu().numpy()
    return logits


def _sklearn_logits(head: Any, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the decision function of a logistic regression or an SVM; of any other classifier, its log-probabilities.

    Of two classes the decision function is the log-odds of the second: each class gets half of it.
    """
    from sklearn.linear_model import LogisticRegression

    # liblinear fits one class against the rest: there the softmax of the decision function is something else.
    linear = isinstance(head, LogisticRegression) and (head.solver != "liblinear" or len(head.classes_) == 2)
    if linear or not hasattr(head, "predict_proba"):
        found = head.decision_function(vectors)
        found = found if found.ndim > 1 else np.stack([-found / 2, found / 2], axis=1)
    else:
        found = np.log(head.predict_proba(vectors).clip(_LEAST, 1))
    return np.asarray(found, np.float32)
