import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from kd_bilstm import Options, build
from kd_bilstm.model import embedding, pack
from kdcli.api import Batch, Task

SINGLE = Task("single", "single", ("0", "1"))
PAIR = Task("pair", "pair", ("a", "b", "c"))
SCORE = Task("score", "pair", (), score_range=(0.0, 5.0), metric="pearson")
WORDS, SIZE = 20, 6

lengths_of = st.lists(st.integers(1, 7), min_size=1, max_size=6)


def model(task=SINGLE, vectors=None, **options):
    torch.manual_seed(1)
    return build(Options(**{"hidden": 5, "fc": 4, **options}), task, WORDS, vectors, SIZE).eval()


def padded(lengths, seed=0, extra=0):
    """Random texts of these lengths, with ``extra`` columns of padding beyond the longest."""
    numbers = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    words = torch.randint(1, WORDS, (len(lengths), int(lengths.max()) + extra), generator=numbers)
    return words * (torch.arange(words.shape[1]) < lengths[:, None]), lengths


def by_torch(module, words, lengths):
    """Last states by PyTorch's own recurrence, one text at a time, without padding."""
    states = []
    for text, length in zip(words, lengths, strict=True):
        vectors = torch.cat(module.embedding(text[:length]), dim=-1)
        result = module.rnn(vectors[:, None])[1]
        hidden = result[0] if isinstance(module.rnn, nn.LSTM) else result
        states.append(torch.cat([hidden[-2, 0], hidden[-1, 0]]))
    return torch.stack(states)


@settings(max_examples=25, deadline=None)
@given(lengths_of, st.sampled_from(["lstm", "gru"]), st.integers(1, 3), st.integers(0, 3))
def test_recurrence_is_pytorchs_text_by_text(lengths, cell, layers, extra):
    module = model(cell=cell, layers=layers)
    words, lengths = padded(lengths, extra=extra)
    torch.testing.assert_close(module.encode(words, lengths), by_torch(module, words, lengths), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_are_pytorchs(cell, layers):
    module = model(cell=cell, layers=layers, embeddings="multichannel")
    words, lengths = padded([3, 1, 7, 3, 2])
    weights = torch.linspace(-1, 1, 10)
    found = {}
    for name, states in (("ours", module.encode(words, lengths)), ("theirs", by_torch(module, words, lengths))):
        module.zero_grad()
        (states.square() @ weights).sum().backward()
        found[name] = {key: value.grad.clone() for key, value in module.named_parameters() if value.grad is not None}
    assert found["ours"].keys() == found["theirs"].keys()
    assert "embedding.trained.weight" in found["ours"]
    assert "embedding.frozen.weight" not in found["ours"]
    for key, value in found["theirs"].items():
        assert value.abs().max() > 0
        torch.testing.assert_close(found["ours"][key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", [SINGLE, PAIR, SCORE], ids=lambda task: task.name)
def test_padding_and_neighbours_make_no_difference(task):
    module = model(task, layers=2)
    columns = [padded([4, 1, 7, 2], seed=number, extra=number) for number in range(len(task.columns))]
    together = module(Batch(tuple(words for words, _ in columns), tuple(lengths for _, lengths in columns)))
    assert together.shape == (4, task.outputs)
    for row in range(4):
        alone = Batch(
            tuple(words[row : row + 1, : lengths[row]] for words, lengths in columns),
            tuple(lengths[row : row + 1] for _, lengths in columns),
        )
        torch.testing.assert_close(together[row : row + 1], module(alone), rtol=1e-5, atol=1e-6)


def test_pair_compares_the_two_states():
    module = model(PAIR)
    (one, short), (two, long) = padded([2, 3], seed=1), padded([5, 1], seed=2)
    h1, h2 = by_torch(module, one, short), by_torch(module, two, long)
    hidden = torch.relu(module.fc(torch.cat([h1, h2, (h1 - h2).abs(), h1 * h2], dim=1)))
    torch.testing.assert_close(module(Batch((one, two), (short, long))), module.logits(hidden), rtol=1e-5, atol=1e-6)


def test_parameters_of_the_paper():
    module = build(Options(), SINGLE, 100, None, 300)
    inside = sum(parameter.numel() for parameter in module.parameters())
    assert inside - 2 * 100 * 300 == 2 * (4 * 150 * (600 + 150) + 8 * 150) + 300 * 200 + 200 + 200 * 2 + 2 == 963_002


@pytest.mark.parametrize(
    ("kind", "trained", "frozen"),
    [("rand", True, False), ("non-static", True, False), ("static", False, True), ("multichannel", True, True)],
)
def test_embeddings(kind, trained, frozen):
    vectors = np.arange(WORDS * SIZE, dtype=np.float32).reshape(WORDS, SIZE)
    built = embedding(kind, WORDS, vectors, SIZE)
    assert built.dimension == SIZE * (trained + frozen)
    for part, there, learns in ((built.trained, trained, True), (built.frozen, frozen, False)):
        assert (part is not None) == there
        if part is not None:
            assert part.weight.requires_grad == learns
            assert np.array_equal(part.weight.detach().numpy(), vectors) == (kind != "rand")
    with torch.no_grad():
        for part in built.children():
            part.weight.zero_()
    assert vectors[1, 0] == SIZE  # the model has copies


def test_random_vectors_are_in_range():
    weights = embedding("rand", 500, None, 50).trained.weight
    assert weights.abs().max() <= 0.25
    assert weights.std().item() == pytest.approx(0.5 / 12**0.5, rel=0.05)


def test_dropout_is_for_training_alone():
    module = model(dropout=0.5, layers=2)
    batch = Batch(*[(part,) for part in padded([3, 3])])
    assert torch.equal(module(batch), module(batch))
    module.train()
    assert not torch.equal(module(batch), module(batch))


@settings(max_examples=50, deadline=None)
@given(lengths_of)
def test_mirror_leads_from_each_word_to_its_opposite(lengths):
    words, tensor = padded(lengths)
    packed = pack(words, tensor)
    assert sum(packed.counts) == sum(lengths)
    assert torch.equal(packed.mirror[packed.mirror], torch.arange(sum(lengths)))
    for row, length in enumerate(lengths):
        place = packed.restore[row]
        assert packed.words[place] == words[row, 0]
        assert packed.words[packed.mirror[place]] == words[row, length - 1]


@pytest.mark.parametrize("wrong", [{"hidden": 0}, {"cell": "rnn"}, {"dropout": 1}, {"embeddings": "none"}, {"size": 3}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        Options(**wrong)


def test_plugin_module_costs_nothing():
    code = "import sys, kd_bilstm; kd_bilstm.Options(); print(*{'torch', 'numpy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
