"""What the student learns from: the teacher's logits, and labels.

Importing this module does not import torch: ``LOSSES`` is read where settings are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kdcli.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from kdcli.config.schema import StudentSettings
    from kdcli.student.dataset import Examples

Loss = Callable[["Tensor", "Tensor | None", "Tensor | None"], "Tensor"]
"""From the student's logits ``[batch, outputs]``, the teacher's and the labels ``[batch]`` to a number."""


def mse(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean squared error of the logits (Tang et al. 2019, section 3.2); it has no temperature."""
    from torch.nn import functional

    return functional.mse_loss(student.float(), teacher.float())


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) at a temperature, the mean over the batch, times the temperature squared.

    The factor keeps the gradient's size whatever the temperature (Hinton et al. 2015, section 2).
    """
    from torch.nn import functional

    target = functional.log_softmax(teacher.float() / temperature, dim=-1)
    output = functional.log_softmax(student.float() / temperature, dim=-1)
    return functional.kl_div(output, target, reduction="batchmean", log_target=True) * temperature**2


LOSSES = {"mse": mse, "kl": kl}
"""The distillation losses by the name in ``student.kd_loss``: of the student's logits, the teacher's, a temperature."""


def label_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy with class ids ``int64 [batch]``, or the squared error from scores ``float [batch]``."""
    from torch.nn import functional

    if labels.is_floating_point():
        return functional.mse_loss(student[:, 0].float(), labels)
    return functional.cross_entropy(student.float(), labels)


def loss_of(settings: StudentSettings) -> Loss:
    """Return the weighted sum of the settings' losses; one of weight 0 is not computed, and does not need its input."""
    distance = LOSSES[settings.kd_loss]

    def loss(student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        parts = []
        if settings.kd_weight and teacher is not None:
            parts.append(settings.kd_weight * distance(student, teacher, settings.temperature))
        if settings.ce_weight and labels is not None:
            parts.append(settings.ce_weight * label_loss(student, labels))
        return sum(parts[1:], start=parts[0])

    return loss


def check_inputs(settings: StudentSettings, examples: Examples) -> None:
    """Check that the examples have what the losses need.

    Raises:
        DataError: They have no logits, or no labels, for a loss that needs them.
    """
    if settings.kd_weight and examples.logits is None:
        raise DataError("there are no teacher's logits to distil", hint="set student.kd_weight to 0")
    if settings.ce_weight and examples.labels is None:
        raise DataError("a row has no label, and student.ce_weight is above 0", hint="set student.ce_weight to 0")
