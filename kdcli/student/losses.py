"""What the student learns from: the teacher's logits, and labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from kdcli.api import Task
from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError, ProfileError
from kdcli.student.examples import Examples

Loss = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
"""From the student's logits ``[batch, outputs]``, the teacher's and the labels ``[batch]`` to a number."""


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared error of the logits (Tang et al. 2019, section 3.2); it has no temperature."""
    return functional.mse_loss(student.float(), teacher.float())


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) at a temperature, the mean over the batch, times the temperature squared.

    The factor keeps the gradient's size whatever the temperature (Hinton et al. 2015, section 2).
    """
    wanted = functional.log_softmax(teacher.float() / temperature, dim=-1)
    given = functional.log_softmax(student.float() / temperature, dim=-1)
    return functional.kl_div(given, wanted, reduction="batchmean", log_target=True) * temperature**2


def label_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy with class ids ``int64 [batch]``, or the squared error from scores ``float [batch]``."""
    if labels.is_floating_point():
        return functional.mse_loss(student[:, 0].float(), labels)
    return functional.cross_entropy(student.float(), labels)


def loss_of(settings: StudentSettings) -> Loss:
    """Return the weighted sum of the settings' losses; one of weight 0 is not computed, and does not need its input."""

    def loss(student: Tensor, teacher: Tensor | None, labels: Tensor | None) -> Tensor:
        parts = []
        if settings.kd_weight and teacher is not None:
            is_kl = settings.kd_loss == "kl"
            distance = kl(student, teacher, settings.temperature) if is_kl else mse(student, teacher)
            parts.append(settings.kd_weight * distance)
        if settings.ce_weight and labels is not None:
            parts.append(settings.ce_weight * label_loss(student, labels))
        return sum(parts[1:], start=parts[0])

    return loss


def check_losses(settings: StudentSettings, task: Task, examples: Examples) -> None:
    """Refuse losses that the task has no use for or that the examples cannot feed.

    Raises:
        ProfileError: All weights are 0, or the KL divergence of a score is asked for.
        DataError: The examples have no logits, or no labels, for a loss that needs them.
    """
    if not settings.kd_weight and not settings.ce_weight:
        hint = "give a loss a weight above 0"
        raise ProfileError("there is nothing to learn from", key="student.kd_weight", hint=hint)
    if settings.kd_weight and settings.kd_loss == "kl" and task.is_score:
        what = "the KL divergence is for classes, not for a score"
        raise ProfileError(what, key="student.kd_loss", hint='set it to "mse"')
    if settings.kd_weight and examples.logits is None:
        raise DataError("there are no teacher's logits to distil", hint="set student.kd_weight to 0")
    if settings.ce_weight and examples.labels is None:
        raise DataError("a row has no label, and student.ce_weight is above 0", hint="set student.ce_weight to 0")
