import importlib

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from student_forms import PAIR, SINGLE, WORDS, batch_of, by_numpy, columns_of, model_of, weights_of

from kdcli.models.embedding import embedding

SMALL = {"bilstm": {"hidden": 8, "fc": 4}, "dan": {"buckets": 37, "fc": 50}, "kimcnn": {"filters": 8, "widths": (2, 3)}}

each = pytest.mark.parametrize("name", SMALL)


def plugin_of(name):
    return importlib.import_module(f"kd_{name}")


@each
def test_dropout_is_for_training_alone_and_a_large_batch_is_computed_in_pieces(name):
    module, _ = model_of(plugin_of(name), SINGLE, **SMALL[name], dropout=0.5)
    batch = batch_of(columns_of(SINGLE, [3, 3]))
    assert torch.equal(module(batch), module(batch))
    module.train()
    assert not torch.equal(module(batch), module(batch))
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
        ("bilstm", {"cell": "rnn"}),
        ("dan", {"ngram": 1}),
        ("dan", {"buckets": 2**31}),
        ("kimcnn", {"widths": [3, 0]}),
        *((name, {"dropout": 1}) for name in SMALL),
    ],
)
def test_wrong_options_are_refused(name, wrong):
    with pytest.raises(ValidationError):
        plugin_of(name).Options(**wrong)


SIZE = 6
VECTORS = np.arange(WORDS * SIZE, dtype=np.float32).reshape(WORDS, SIZE)


@pytest.mark.parametrize(
    ("kind", "trained", "frozen"),
    [("rand", True, False), ("non-static", True, False), ("static", False, True), ("multichannel", True, True)],
)
def test_channels_of_each_kind(kind, trained, frozen):
    vectors = VECTORS.copy()
    made = embedding(kind, WORDS, vectors, SIZE)
    assert made.dimension == SIZE * (trained + frozen)
    assert (made.trained is not None, made.frozen is not None) == (trained, frozen)
    for part in filter(None, (made.trained, made.frozen)):
        assert part.weight.requires_grad == (part is made.trained)
        assert np.array_equal(part.weight.detach().numpy(), vectors) == (kind != "rand")
    if trained:
        made.trained.weight.detach().zero_()
    assert np.array_equal(vectors, VECTORS)  # what is trained is a copy


@pytest.mark.parametrize("kind", ["rand", "static", "non-static", "multichannel"])
def test_random_vectors_are_in_range(kind):
    part, *others = embedding(kind, 500, None, 50).parameters()
    assert part.abs().max() <= 0.25
    assert part.std().item() == pytest.approx(0.5 / 12**0.5, rel=0.05)
    assert all(torch.equal(part, other) for other in others)
