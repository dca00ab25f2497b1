"""Several classifiers of Hugging Face with the same labels: the weighted mean of their logits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from kdcli.api import API_VERSION, DataError, ProfileError

if TYPE_CHECKING:
    from kdcli.models.classifier import Classifier

api_version = API_VERSION


class Options(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The table ``[teachers.ensemble]`` of a profile."""

    models: tuple[str, ...] = ()
    """Folders or hub names of the models; `teacher.model` comes before them, unless it is one of them."""
    weights: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()
    """Weight of each model's logits, in the order of the models; by default all count the same, or `kd distil` fits
    them to gold labels of dev texts."""


@dataclass
class Ensemble:
    """The models, their weights, and where each has the labels of the first."""

    labels: tuple[str, ...]
    members: list["Classifier"]
    weights: list[float]  # they sum to 1
    outputs: list[list[int]]
    given: bool  # whether the options have weights
    cut: int = field(default=0, init=False)  # texts that the model with the lowest limit cuts

    def __post_init__(self) -> None:
        """Sum up what the models say of themselves."""
        self.multi_label = self.members[0].multi_label
        self.max_length = min(member.max_length for member in self.members)
        self.parameters = sum(member.parameters for member in self.members)
        self.parameters_without_embeddings = sum(member.parameters_without_embeddings for member in self.members)
        self.megabytes = sum(member.megabytes for member in self.members)

    def logits(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the weighted mean of the logits, ``float32 [texts, outputs]``."""
        return np.asarray(np.tensordot(self.weights, self._each(columns, batch), axes=1), np.float32)

    def _each(self, columns: Sequence[Sequence[str]], batch: int) -> NDArray[np.float32]:
        """Return the logits of each model, ``float32 [models, texts, outputs]``."""
        found, cut = [], []
        for member, order in zip(self.members, self.outputs, strict=True):
            before = member.cut
            found.append(member.logits(columns, batch)[:, order])
            cut.append(member.cut - before)
        self.cut += max(cut)
        return np.stack(found)

    def fit(self, columns: Sequence[Sequence[str]], gold: NDArray[Any], batch: int) -> dict[str, Any]:
        """Return the weights that fit gold labels best, unless they are given; see ``fit_weights``."""
        return {} if self.given else {"weights": fit_weights(self._each(columns, batch), gold)}

    def fingerprint(self) -> str:
        """Return a hash of the models' files, in their order."""
        return sha256("\n".join(member.fingerprint() for member in self.members).encode()).hexdigest()


def load(model: str, options: Options, *, labels: tuple[str, ...], **how: Any) -> Ensemble:
    """Load the models; see ``kdcli.api.TeacherPlugin``."""
    from kdcli.models.classifier import load_classifier

    names = options.models if model in options.models else (model, *options.models)
    if len(names) < 2:
        hint = '--set \'teachers.ensemble.models=["FOLDER", "FOLDER"]\''
        raise ProfileError("an ensemble needs two models or more", key="teachers.ensemble.models", hint=hint)
    weights = options.weights or (1.0,) * len(names)
    if len(weights) != len(names) or not sum(weights):
        what = f"weights: {len(weights)}, and models: {len(names)} ({', '.join(names)})"
        raise ProfileError(what, key="teachers.ensemble.weights", hint="give one for each, not all 0, or none")
    keys = ["teacher.model" if name == model else "teachers.ensemble.models" for name in names]
    members = [load_classifier(name, key=key, **how) for name, key in zip(names, keys, strict=True)]
    outputs = [_positions(members[0], member) for member in members]
    shares = [weight / sum(weights) for weight in weights]
    return Ensemble(members[0].labels, members, shares, outputs, bool(options.weights))


def fit_weights(logits: NDArray[np.float32], gold: NDArray[Any]) -> list[float]:
    """Return the weights that sum to 1 and give the mean of ``logits [models, texts, outputs]`` the least loss.

    ``gold`` are the numbers of the right outputs, ``bool [texts, outputs]`` where each is a yes or no of its own, or
    scores. The loss, that of ``kdcli.models.losses``, is convex.
    """
    import torch
    from scipy.optimize import minimize

    from kdcli.models.losses import label_losses

    each = torch.from_numpy(logits)
    labels = torch.from_numpy(gold.astype(np.float32) if logits.shape[2] == 1 else gold)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        leaf = torch.tensor(weights, dtype=torch.float32, requires_grad=True)
        value = label_losses(torch.tensordot(leaf, each, dims=1), labels).mean()
        (gradient,) = torch.autograd.grad(value, leaf)
        return float(value.detach()), gradient.double().numpy()

    models = len(logits)
    sums_to_1 = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    how: Any = {"jac": True, "method": "SLSQP", "bounds": [(0, 1)] * models, "constraints": sums_to_1}
    found = minimize(loss, np.full(models, 1 / models), options={"ftol": 1e-9, "maxiter": 200}, **how).x
    return [round(float(weight), 4) for weight in found]


def _positions(first: "Classifier", member: "Classifier") -> list[int]:
    """Return for each output of the first model the one of ``member`` that has its name, whatever the case."""
    wanted, names = ([name.casefold() for name in one.labels] for one in (first, member))
    if sorted(wanted) != sorted(names):
        shown = [f"{', '.join(one.labels) or 'a score'} ({one.folder})" for one in (first, member)]
        what, key = f"two models have different labels: {' and '.join(shown)}", "teachers.ensemble.models"
        hint = "all models of an ensemble must have the same labels; correct id2label in config.json if it is wrong"
        raise DataError(what, key=key, hint=hint)
    return [names.index(name) for name in wanted] or [0]
