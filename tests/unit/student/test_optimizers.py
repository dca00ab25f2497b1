import pytest
import torch
from torch import nn
from torch.nn import functional

from kdcli.config.schema import StudentSettings
from kdcli.student.optimizers import SparseAdadelta, clip_gradients, make_optimizer

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


def test_clipping_counts_sparse_gradients():
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


def test_clipping_leaves_small_gradients():
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
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert optimizer.param_groups[0]["rho"] == 0.8
    assert len(optimizer.param_groups[0]["params"]) == 3
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        other = make_optimizer(nn.Embedding(3, 2), StudentSettings(optimizer=name, lr=0.1, weight_decay=0.2), CPU)
        assert type(other) is kind
        assert other.param_groups[0]["weight_decay"] == 0.2
