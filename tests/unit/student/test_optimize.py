from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch import nn
from torch.nn import functional

from kdcli.config.schema import StudentSettings
from kdcli.models.losses import balanced_weights, label_losses
from kdcli.student import optimize
from kdcli.student.optimize import SparseAdadelta, SparseAdam, bce, clip_gradients, kl, loss_of, make_optimizer, mse

NUMBERS = np.random.default_rng(0)
STUDENT, TEACHER = NUMBERS.normal(size=(5, 3)).astype(np.float32), 3 * NUMBERS.normal(size=(5, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0])


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_mse_is_the_mean_over_all_logits():
    assert mse(*tensors(STUDENT, TEACHER)).item() == pytest.approx(((STUDENT - TEACHER) ** 2).mean(), rel=1e-5)
    half = torch.from_numpy(STUDENT).half()
    for loss in (mse(half, half + 1), kl(half, half + 1, 2.0), label_losses(half, torch.from_numpy(LABELS))):
        assert loss.dtype == torch.float32
    assert set(optimize.LOSSES) == set(get_args(StudentSettings.model_fields["kd_loss"].annotation))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_from_teacher_to_student_times_t_squared(temperature):
    expected = rel_entr(softmax(TEACHER / temperature, 1), softmax(STUDENT / temperature, 1)).sum(1).mean()
    assert kl(*tensors(STUDENT, TEACHER), temperature).item() == pytest.approx(expected * temperature**2, rel=1e-4)


def test_label_losses_and_the_weights_of_both():
    expected = -log_softmax(STUDENT, 1)[np.arange(5), LABELS].mean()
    assert label_losses(*tensors(STUDENT, LABELS)).mean().item() == pytest.approx(expected, rel=1e-5)
    scores = np.arange(5, dtype=np.float32)
    expected = ((STUDENT[:, 0] - scores) ** 2).mean()
    assert label_losses(*tensors(STUDENT[:, :1], scores)).mean().item() == pytest.approx(expected, rel=1e-5)

    def expected(yes):  # the binary cross entropy, by its definition
        share = 1 / (1 + np.exp(-STUDENT.astype(np.float64)))
        return -(yes * np.log(share) + (1 - yes) * np.log(1 - share))

    assert label_losses(*tensors(STUDENT, SETS)).numpy() == pytest.approx(expected(SETS), rel=1e-4)
    soft = 1 / (1 + np.exp(-TEACHER.astype(np.float64)))
    assert bce(*tensors(STUDENT, TEACHER)).item() == pytest.approx(expected(soft).mean(), rel=1e-4)
    student, teacher, labels = tensors(STUDENT, TEACHER, LABELS)
    both = loss_of(StudentSettings(kd_weight=0.3, ce_weight=2.0))(student, teacher, labels)
    expected = 0.3 * mse(student, teacher).item() + 2 * label_losses(student, labels).mean().item()
    assert both.item() == pytest.approx(expected)
    assert loss_of(StudentSettings(kd_weight=2.0))(student, teacher, None).item() == 2 * mse(student, teacher).item()
    alone = loss_of(StudentSettings(kd_weight=0.0, ce_weight=1.0))(student, None, labels)
    assert alone.item() == label_losses(student, labels).mean().item()
    warm = loss_of(StudentSettings(kd_loss="kl", temperature=3.0))(student, teacher, None)
    assert warm.item() == kl(student, teacher, 3.0).item()


SETS = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]], bool)


def test_balanced_weights_are_those_of_scikit_learn():
    own = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert balanced_weights(LABELS, 3).tolist() == pytest.approx(own)
    assert balanced_weights(LABELS, 4).tolist() == pytest.approx([*(0.75 * own), 0]), "a class that no row has"
    rows = compute_sample_weight("balanced", LABELS)
    plain, weighted = (label_losses(*tensors(STUDENT, LABELS), one) for one in (None, balanced_weights(LABELS, 3)))
    assert weighted.numpy() == pytest.approx(plain.numpy() * rows, rel=1e-5)
    each = [compute_sample_weight("balanced", label) for label in SETS.T]
    plain, weighted = (label_losses(*tensors(STUDENT, SETS), one) for one in (None, balanced_weights(SETS, 3)))
    assert weighted.numpy() == pytest.approx(plain.numpy() * np.stack(each, 1), rel=1e-5)


CPU = torch.device("cpu")


def table(sparse, rows=30, size=4):
    torch.manual_seed(1)
    return nn.Embedding(rows, size, sparse=sparse)


def updates(count, rows=30, seed=2):
    """Word ids with repeats; some rows are seen often, some after a long time, some never."""
    numbers = torch.Generator().manual_seed(seed)
    for number in range(count):
        words = torch.randint(0, 3 if number % 50 else rows - 5, (6,), generator=numbers)
        yield words, torch.randn(6, 4, generator=numbers)


def step(embedding, optimizer, words, wanted, clip=0.0):
    optimizer.zero_grad()
    functional.mse_loss(embedding(words), wanted).backward()
    if clip:
        clip_gradients(embedding.parameters(), clip)
    optimizer.step()


@pytest.mark.parametrize("forms", [[True], [False], [False, True, True]], ids=["sparse", "dense", "mixed"])
def test_adadelta_is_the_dense_one(forms):
    ours, theirs = table(True), table(False)
    mine = SparseAdadelta(ours.parameters(), lr=1.0, rho=0.9)
    dense = torch.optim.Adadelta(theirs.parameters(), lr=1.0, rho=0.9, eps=1e-6)
    start = theirs.weight.detach().clone()
    for number, (words, wanted) in enumerate(updates(600)):
        ours.sparse = forms[number % len(forms)]
        step(ours, mine, words, wanted)
        step(theirs, dense, words, wanted)
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-6)
    assert (theirs.weight - start).abs().max() > 0.1


def test_adam_moves_a_row_seldom_seen_as_the_dense_one_does_in_the_end_and_no_other():
    ours, theirs = table(True).double(), table(False).double()
    optimizers = SparseAdam(ours.parameters(), lr=1e-3), torch.optim.Adam(theirs.parameters(), lr=1e-3)
    start = theirs.weight.detach().clone()
    for number in range(1200):  # row 0 each time, rows 1 to 3 every 300th time
        words = torch.arange(4) if number % 300 == 100 else torch.tensor([0, 0])
        for module, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (module(words) * torch.arange(1.0, 5)).sum().backward()
            optimizer.step()
    moved, dense = ours.weight.detach() - start, theirs.weight.detach() - start
    # A constant gradient: in the long run each step is the rate, with momentum or without.
    torch.testing.assert_close(moved[0], dense[0], rtol=0.01, atol=0)
    # The momentum takes 0.1 / (1 - 0.9 / sqrt(0.999)) = 1.0045 steps, while the correction of the squares goes on.
    torch.testing.assert_close(moved[1:4], dense[1:4], rtol=0.02, atol=0)
    assert dense[1:4].abs().min() > 0.01
    assert not moved[4:].any()


def test_clipping_counts_sparse_gradients_and_leaves_small_ones():
    ours, theirs = table(True), table(False)
    mine = SparseAdadelta(ours.parameters())
    dense = torch.optim.Adadelta(theirs.parameters(), lr=1.0, rho=0.95, eps=1e-6)
    for words, wanted in updates(60):
        step(ours, mine, words, wanted, clip=0.05)
        dense.zero_grad()
        functional.mse_loss(theirs(words), wanted).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        dense.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=1e-6)
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([0.3, 0.0, 0.4])
    clip_gradients([parameter], 1.0)
    assert parameter.grad.tolist() == pytest.approx([0.3, 0, 0.4])
    clip_gradients([parameter, nn.Parameter(torch.ones(1))], 0.05)
    assert parameter.grad.norm().item() == pytest.approx(0.05, rel=1e-4)


def test_choice():
    module = nn.Sequential(nn.Embedding(3, 2), nn.Embedding(3, 2), nn.Linear(2, 2))
    module[1].weight.requires_grad_(False)
    optimizer = make_optimizer(module, StudentSettings(lr=0.5, rho=0.8), CPU)
    assert isinstance(optimizer, SparseAdadelta)
    assert [module[0].sparse, module[1].sparse] == [True, False]
    (group,) = optimizer.param_groups
    assert (group["lr"], group["rho"], len(group["params"])) == (0.5, 0.8, 3)
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        module = nn.Embedding(3, 2)
        other = make_optimizer(module, StudentSettings(optimizer=name, lr=0.1, weight_decay=0.2), CPU)
        assert type(other) is kind and not module.sparse
        assert other.param_groups[0]["weight_decay"] == 0.2
        assert isinstance(make_optimizer(module, StudentSettings(optimizer=name), CPU), SparseAdam) and module.sparse


def test_averages_are_near_the_weights_at_first_and_then_decay():
    module = nn.Linear(3, 2).double()
    module.bias.requires_grad_(False)
    average = optimize.averaged(module, 0.5)
    expected = None
    for count in range(12):
        weights = NUMBERS.normal(size=(2, 3))
        module.weight.data = torch.from_numpy(weights)
        average.update_parameters(module)
        decay = min(0.5, (1 + count) / (10 + count))
        expected = weights if expected is None else decay * expected + (1 - decay) * weights
        np.testing.assert_allclose(average.module.weight.detach().numpy(), expected, rtol=1e-12)
    assert average.module.bias.data_ptr() == module.bias.data_ptr()
