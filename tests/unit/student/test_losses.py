from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from kdcli.config.schema import StudentSettings
from kdcli.errors import DataError
from kdcli.student.batches import Texts
from kdcli.student.dataset import Examples
from kdcli.student.losses import LOSSES, check_inputs, kl, label_loss, loss_of, mse

NUMBERS = np.random.default_rng(0)
STUDENT, TEACHER = NUMBERS.normal(size=(5, 3)).astype(np.float32), 3 * NUMBERS.normal(size=(5, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0])


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_mse_is_the_mean_over_all_logits():
    assert mse(*tensors(STUDENT, TEACHER)).item() == pytest.approx(((STUDENT - TEACHER) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_from_teacher_to_student_times_t_squared(temperature):
    expected = rel_entr(softmax(TEACHER / temperature, 1), softmax(STUDENT / temperature, 1)).sum(1).mean()
    assert kl(*tensors(STUDENT, TEACHER), temperature).item() == pytest.approx(expected * temperature**2, rel=1e-4)


def test_gradient_of_kl_is_zero_at_equal_logits_and_keeps_its_size():
    student = torch.from_numpy(TEACHER.copy()).requires_grad_()
    loss = kl(student, torch.from_numpy(TEACHER), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.abs().max().item() == pytest.approx(0, abs=1e-6)
    sizes = []
    for temperature in (50.0, 100.0):
        student = torch.from_numpy(STUDENT).requires_grad_()
        kl(student, torch.from_numpy(TEACHER), temperature).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


def test_label_loss():
    expected = -log_softmax(STUDENT, 1)[np.arange(5), LABELS].mean()
    assert label_loss(*tensors(STUDENT, LABELS)).item() == pytest.approx(expected, rel=1e-5)
    scores = np.arange(5, dtype=np.float32)
    expected = ((STUDENT[:, 0] - scores) ** 2).mean()
    assert label_loss(*tensors(STUDENT[:, :1], scores)).item() == pytest.approx(expected, rel=1e-5)


def test_weights():
    student, teacher, labels = tensors(STUDENT, TEACHER, LABELS)
    both = loss_of(StudentSettings(kd_weight=0.3, ce_weight=2.0))(student, teacher, labels)
    assert both.item() == pytest.approx(0.3 * mse(student, teacher).item() + 2 * label_loss(student, labels).item())
    assert loss_of(StudentSettings(kd_weight=2.0))(student, teacher, None).item() == 2 * mse(student, teacher).item()
    alone = loss_of(StudentSettings(kd_weight=0.0, ce_weight=1.0))(student, None, labels)
    assert alone.item() == label_loss(student, labels).item()
    warm = loss_of(StudentSettings(kd_loss="kl", temperature=3.0))(student, teacher, None)
    assert warm.item() == kl(student, teacher, 3.0).item()


@pytest.mark.parametrize(("changed", "message"), [({}, "logits"), ({"kd_weight": 0.0, "ce_weight": 1.0}, "label")])
def test_rows_that_lack_what_a_loss_needs(changed, message):
    bare = Examples((Texts(np.ones(1, np.uint16), np.array([0, 1])),))
    with pytest.raises(DataError, match=message):
        check_inputs(StudentSettings(**changed), bare)


def test_the_table_of_losses_is_that_of_the_settings():
    assert set(LOSSES) == set(get_args(StudentSettings.model_fields["kd_loss"].annotation))
