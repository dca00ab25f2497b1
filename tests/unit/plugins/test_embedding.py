import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import kd_bilstm
import kd_kimcnn
from kdcli.api import Batch, Task
from kdcli.models.embedding import embedding

TASK = Task("single", "single", ("0", "1"))
WORDS, SIZE = 20, 6
VECTORS = np.arange(WORDS * SIZE, dtype=np.float32).reshape(WORDS, SIZE)
KINDS = ("rand", "static", "non-static", "multichannel")


def built(student, kind, vectors=VECTORS):
    torch.manual_seed(1)
    return student.build(student.Options(embeddings=kind), TASK, WORDS, vectors, SIZE)


def batch():
    words = torch.tensor([[3, 5, 3, 7, 2], [2, 9, 0, 0, 0]])
    return Batch((words,), (torch.tensor([5, 2]),))


@pytest.mark.parametrize(
    ("kind", "trained", "frozen"),
    [("rand", True, False), ("non-static", True, False), ("static", False, True), ("multichannel", True, True)],
)
def test_channels_of_each_kind(kind, trained, frozen):
    vectors = VECTORS.copy()
    made = embedding(kind, WORDS, vectors, SIZE)
    assert made.dimension == SIZE * (trained + frozen)
    for part, there, learns in ((made.trained, trained, True), (made.frozen, frozen, False)):
        assert (part is not None) == there
        if part is not None:
            assert part.weight.requires_grad == learns
            assert np.array_equal(part.weight.detach().numpy(), vectors) == (kind != "rand")
            part.weight.detach().zero_()
    assert np.array_equal(vectors, VECTORS)  # the model has copies


@pytest.mark.parametrize("kind", KINDS)
def test_random_vectors_are_in_range(kind):
    parts = list(embedding(kind, 500, None, 50).parameters())
    assert all(torch.equal(part, parts[0]) for part in parts)
    for part in parts:
        assert part.abs().max() <= 0.25
        assert part.std().item() == pytest.approx(0.5 / 12**0.5, rel=0.05)


def flops(student, kind):
    """Multiplications and additions forward, and backward."""
    module = built(student, kind)
    with FlopCounterMode(display=False) as forward:
        logits = module(batch())
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    return np.array([forward.get_total_flops(), backward.get_total_flops()])


@pytest.mark.parametrize("student", [kd_bilstm, kd_kimcnn], ids=lambda student: student.__name__)
def test_a_frozen_channel_costs_no_gradient(student):
    """Going backward, it costs what its weights do, as much as going forward; a trained one costs twice that."""
    forward, backward = flops(student, "multichannel") - flops(student, "non-static")
    assert backward == forward > 0
    assert flops(student, "non-static")[1] - flops(student, "static")[1] == forward
