import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_forms import PAIR, SCORE, SINGLE, batch_of, by_onnx, columns_of, compared, model_of
from torch import nn

import kd_bilstm
from kd_bilstm import onnx_graph

each_variant = pytest.mark.parametrize(
    ("cell", "layers", "pooling"), list(itertools.product(["lstm", "gru"], [1, 2, 3], ["last", "max"]))
)
each_kind = pytest.mark.parametrize("task", [SINGLE, PAIR, SCORE], ids=lambda task: task.name)


def by_torch(module, columns, pooling):
    """Logits by PyTorch's own recurrence, one text at a time, without padding."""
    states = []
    for words, lengths in columns:
        states.append([])
        for text, length in zip(torch.from_numpy(words), lengths, strict=True):
            outputs, result = module.rnn(torch.cat(module.embedding(text[:length]), dim=-1)[:, None])
            hidden = result[0] if isinstance(module.rnn, nn.LSTM) else result
            last = torch.cat([hidden[-2, 0], hidden[-1, 0]])
            states[-1].append(last if pooling == "last" else outputs[:, 0].max(dim=0).values)
    return module.logits(torch.relu(module.fc(compared(map(torch.stack, states))))).detach().numpy()


def model(task=SINGLE, **options):
    """Return a module, and a function that runs its graph."""
    module, chosen = model_of(kd_bilstm, task, **{"hidden": 5, "fc": 4, **options})
    return module, lambda columns: by_onnx(kd_bilstm, chosen, task, module, columns)


@each_kind
@each_variant
def test_logits_are_pytorchs_text_by_text(task, cell, layers, pooling):
    module, graph = model(task, cell=cell, layers=layers, pooling=pooling)
    for lengths, extra in (([1], 0), ([4, 1], 1), ([3, 1, 7, 3, 2, 1, 5], 0), (range(1, 33), 3)):
        columns = columns_of(task, lengths, extra)
        expected = by_torch(module, columns, pooling)
        assert len(expected) < 32 or expected.std(axis=0).min() > 5e-3
        np.testing.assert_allclose(graph(columns), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("embeddings", ["rand", "static", "non-static", "multichannel"])
def test_each_kind_of_embedding(embeddings):
    module, graph = model(embeddings=embeddings)
    columns = columns_of(SINGLE, [3, 5, 1])
    np.testing.assert_allclose(graph(columns), by_torch(module, columns, "last"), rtol=0, atol=1e-5)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 3), st.sampled_from(["last", "max"]))
def test_neighbours_and_padding_make_no_difference(lengths, extra, pooling):
    module, graph = model(PAIR, pooling=pooling)
    columns = columns_of(PAIR, lengths, extra)
    np.testing.assert_allclose(graph(columns), module(batch_of(columns)).detach().numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_order_of_the_gates_matters(cell, monkeypatch):
    columns = columns_of(SINGLE, [3, 5, 1])
    expected = model(cell=cell)[1](columns)
    monkeypatch.setitem(onnx_graph.GATES, cell, tuple(range(len(onnx_graph.GATES[cell]))))
    assert np.abs(model(cell=cell)[1](columns) - expected).max() > 1e-2
