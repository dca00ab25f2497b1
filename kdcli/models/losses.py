"""What the trainings of teachers and students share: the loss of labels, its weights, a warning of too few updates."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kdcli.api import Reporter

_FEW = 200  # updates; the fine-tunings of BERT (Devlin et al. 2019) have 230 on RTE, GLUE's smallest table but one


def label_losses(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the loss of each label: the cross entropy, or of scores the squared error.

    Labels are class ids ``int64 [batch]``, scores ``float [batch]``, or sets ``bool [batch, labels]``, of which each
    label is a yes or no of its own; the losses have their shape. ``weights`` are those of ``balanced_weights``.
    """
    logits = logits.float()
    if labels.is_floating_point():
        return functional.mse_loss(logits.squeeze(-1), labels, reduction="none")
    if labels.ndim == 1:
        return functional.cross_entropy(logits, labels, weights, reduction="none")
    losses = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    return losses if weights is None else losses * torch.where(labels, weights[1], weights[0])


def balanced_weights(labels: NDArray[Any], outputs: int) -> Tensor:
    """Return rows / (classes x rows of the class), as scikit-learn has it: ``float32 [classes]``; 0 without rows.

    Of sets of labels, ``bool [rows, labels]``, no and yes are the classes of each label: ``float32 [2, labels]``.
    """
    yes = labels.sum(0)
    counts = np.bincount(labels, minlength=outputs) if labels.ndim == 1 else np.stack([len(labels) - yes, yes])
    weights = np.divide(len(labels) / len(counts), counts, out=np.zeros(counts.shape), where=counts > 0)
    return torch.from_numpy(weights.astype(np.float32))


def warn_of_few(updates: int, who: str, reporter: Reporter) -> None:
    """Warn of a training of a teacher or a student that is too short to learn much."""
    if updates < _FEW:
        reporter.warn(f"few updates of the {who}, {updates}: more {who}.epochs or a smaller {who}.batch_size give more")
