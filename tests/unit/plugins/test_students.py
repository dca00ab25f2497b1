"""What holds for every student of kd: bilstm, dan and kimcnn."""

import importlib

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from student_forms import PAIR, SINGLE, WORDS, batch_of, by_numpy, columns_of, model_of, weights_of
from torch import nn

SMALL = {"bilstm": {"hidden": 8, "fc": 4}, "dan": {"buckets": 37, "fc": 50}, "kimcnn": {"filters": 8, "widths": (2, 3)}}

each = pytest.mark.parametrize("name", SMALL)


def plugin_of(name):
    return importlib.import_module(f"kd_{name}")


@each
def test_dropout_is_for_training_alone(name):
    module, _ = model_of(plugin_of(name), SINGLE, **SMALL[name], dropout=0.5)
    batch = batch_of(columns_of(SINGLE, [3, 3]))
    assert torch.equal(module(batch), module(batch))
    module.train()
    assert not torch.equal(module(batch), module(batch))


@each
def test_a_student_learns_the_order_of_two_words(name):
    torch.manual_seed(1)
    options = plugin_of(name).Options(**{**SMALL[name], "dropout": 0})
    module = plugin_of(name).build(options, SINGLE, WORDS, None, 6)
    words = np.random.default_rng(0).integers(3, WORDS, (64, 6))
    words[:, 2:4] = np.where(np.arange(64)[:, None] % 2, [1, 2], [2, 1])
    batch, labels = batch_of([(words, np.full(64, 6))]), torch.arange(64) % 2
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(batch), labels).backward()
        optimizer.step()
    assert (module.eval()(batch).argmax(dim=1) == labels).float().mean() > 0.95


@each
def test_a_large_batch_is_computed_in_pieces(name):
    module, options = model_of(plugin_of(name), PAIR, **SMALL[name])
    columns = columns_of(PAIR, [*range(1, 40), 300] * 2)
    logits = by_numpy(plugin_of(name), options, PAIR, module, columns)
    np.testing.assert_allclose(logits, module(batch_of(columns)).detach().numpy(), rtol=1e-5, atol=1e-5)


@each
def test_form_of_the_graph(name):
    for task, texts in ((SINGLE, [""]), (PAIR, ["1", "2"])):
        module, options = model_of(plugin_of(name), task, **SMALL[name])
        graph = plugin_of(name).to_onnx(options, task, weights_of(module))
        onnx.checker.check_model(graph, full_check=True)
        assert (graph.ir_version, [(one.domain, one.version) for one in graph.opset_import]) == (8, [("", 17)])
        found = {
            value.name: [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
            for value in (*graph.graph.input, *graph.graph.output)
        }
        expected = {"logits": ["batch", task.outputs]}
        for text in texts:
            expected |= {f"words{text}": ["batch", f"time{text}"], f"lengths{text}": ["batch"]}
        assert found == expected


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("bilstm", {"hidden": 0}),
        ("bilstm", {"cell": "rnn"}),
        ("dan", {"ngram": 1}),
        ("dan", {"buckets": 2**31}),
        ("kimcnn", {"widths": []}),
        ("kimcnn", {"widths": [3, 0]}),
        *((name, {"dropout": 1}) for name in SMALL),
    ],
)
def test_wrong_options_are_refused(name, wrong):
    with pytest.raises(ValidationError):
        plugin_of(name).Options(**wrong)
