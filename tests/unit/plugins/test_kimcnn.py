import itertools
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from kd_kimcnn import Options, build, fast, to_onnx
from kdcli.api import Batch, Task

SINGLE = Task("single", "single", ("0", "1"))
PAIR = Task("pair", "pair", ("a", "b", "c"))
SCORE = Task("score", "pair", (), score_range=(0.0, 5.0), metric="pearson")
WORDS, SIZE = 20, 6

each_kind = pytest.mark.parametrize("task", [SINGLE, PAIR, SCORE], ids=lambda task: task.name)
lengths_of = st.lists(st.integers(1, 9), min_size=1, max_size=8)
widths_of = st.lists(st.integers(1, 6), min_size=1, max_size=3)


def model(task=SINGLE, **options):
    """The module, with weights so large that errors show, and its options."""
    torch.manual_seed(1)
    chosen = Options(**{"filters": 5, **options})
    module = build(chosen, task, WORDS, None, SIZE).eval()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -1, 1)
    return module, chosen


def weights_of(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


def columns_of(task, lengths, extra=0, words=WORDS):
    """Random texts for each column; what lies beyond a text is random too."""
    numbers = np.random.default_rng(0)
    found = []
    for place in range(len(task.columns)):
        counts = np.roll(np.array(lengths), place)
        found.append((numbers.integers(1, words, (len(counts), counts.max() + extra)), counts))
    return found


def batch_of(columns):
    return Batch(*(tuple(map(torch.from_numpy, part)) for part in zip(*columns, strict=True)))


def text_by_text(module, columns):
    """Logits by PyTorch's own convolution: each text alone, between as many zeros as each filter can reach."""
    states = []
    for words, lengths in columns:
        states.append([])
        for text, length in zip(torch.from_numpy(words), lengths, strict=True):
            vectors = torch.cat(module.embedding(text[:length]), dim=1).T  # [size, length]
            highest = []
            for filters in module.filters:
                zeros = torch.zeros(len(vectors), filters.kernel_size[0] - 1)
                text_and_zeros = torch.cat([zeros, vectors, zeros], dim=1)
                values = functional.conv1d(text_and_zeros[None], filters.weight, filters.bias)[0]
                highest.append(torch.relu(values.max(dim=1).values))
            states[-1].append(torch.cat(highest))
    one, *others = map(torch.stack, states)
    parts = [one, *(part for two in others for part in (two, (one - two).abs(), one * two))]
    return module.logits(torch.cat(parts, dim=1))


def run(graph, columns):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(["logits"], dict(zip(names, itertools.chain(*columns), strict=True)))[0]


def assert_all_forms_agree(task, lengths, extra=0, **options):
    module, chosen = model(task, **options)
    columns = columns_of(task, lengths, extra)
    expected = text_by_text(module, columns)
    torch.testing.assert_close(module(batch_of(columns)), expected, rtol=1e-5, atol=1e-5)
    weights, wanted = weights_of(module), expected.detach().numpy()
    quick = fast(chosen, task, weights)(*map(tuple, zip(*columns, strict=True)))
    assert quick.dtype == np.float32
    np.testing.assert_allclose(quick, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(to_onnx(chosen, task, weights), columns), wanted, rtol=1e-5, atol=1e-5)
    return wanted


@each_kind
@pytest.mark.parametrize("embeddings", ["rand", "static", "non-static", "multichannel"])
def test_all_forms_are_a_convolution_text_by_text(task, embeddings):
    logits = assert_all_forms_agree(task, [3, 1, 7, 3, 2, 9, 4], extra=2, embeddings=embeddings)
    assert logits.shape == (7, task.outputs)
    assert logits.std(axis=0).min() > 0.05


@settings(max_examples=20, deadline=None)
@given(lengths_of, widths_of, st.integers(0, 3), st.sampled_from([SINGLE, PAIR]))
def test_texts_of_all_lengths_under_filters_of_all_widths(lengths, widths, extra, task):
    assert_all_forms_agree(task, lengths, extra, widths=widths, filters=3)


def test_a_batch_in_pieces():
    module, chosen = model(PAIR)
    columns = columns_of(PAIR, [*range(1, 40), 300] * 2)  # of about 256 words, or of one text
    quick = fast(chosen, PAIR, weights_of(module))(*map(tuple, zip(*columns, strict=True)))
    np.testing.assert_allclose(quick, module(batch_of(columns)).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_words_come_one_batch_after_the_other():
    module, chosen = model()
    quick = fast(chosen, SINGLE, weights_of(module))
    for words in (3, 8, WORDS, 8):
        columns = columns_of(SINGLE, [4, 2, 6], words=words)
        wanted = module(batch_of(columns)).detach().numpy()
        np.testing.assert_allclose(quick(*map(tuple, zip(*columns, strict=True))), wanted, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_text_by_text():
    module = model(PAIR)[0].double()  # where the order of a sum makes little difference
    columns = columns_of(PAIR, [3, 1, 7, 3, 2], extra=2)
    found = []
    for logits in (module(batch_of(columns)), text_by_text(module, columns)):
        module.zero_grad()
        (logits.square() @ torch.linspace(-1, 1, 3, dtype=torch.float64)).sum().backward()
        found.append({name: value.grad for name, value in module.named_parameters()})
    assert found[0].pop("embedding.frozen.weight") is None
    for name, value in found[0].items():
        assert value.abs().max() > 0
        torch.testing.assert_close(value, found[1][name], rtol=1e-10, atol=1e-10)


def test_every_filter_sees_both_copies():
    module, _ = model(embeddings="multichannel")
    batch = batch_of(columns_of(SINGLE, [4]))
    before = module.encode(batch.words[0], batch.lengths[0])
    for channel in (module.embedding.trained, module.embedding.frozen):
        with torch.no_grad():
            channel.weight += 1
        after = module.encode(batch.words[0], batch.lengths[0])
        assert (after != before).float().mean() > 0.5  # but for those that are 0 before and after
        before = after


def test_sizes_of_the_paper():
    module = build(Options(), SINGLE, 100, None, 300)
    inside = sum(parameter.numel() for parameter in module.parameters()) - 2 * 100 * 300
    assert inside == 100 * (3 + 4 + 5) * 600 + 300 + 300 * 2 + 2
    assert module.dropout.p == 0.5


def test_dropout_is_for_training_alone():
    module, _ = model(filters=50)
    batch = batch_of(columns_of(SINGLE, [3, 3]))
    assert torch.equal(module(batch), module(batch))
    module.train()
    assert not torch.equal(module(batch), module(batch))


def test_a_student_learns_the_order_of_two_words():
    torch.manual_seed(1)
    module = build(Options(filters=8, widths=(2,), dropout=0), SINGLE, WORDS, None, SIZE)
    words = np.random.default_rng(0).integers(3, WORDS, (64, 9))
    words[:, 4:6] = np.where(np.arange(64)[:, None] % 2, [1, 2], [2, 1])
    batch, labels = batch_of([(words, np.full(64, 9))]), torch.arange(64) % 2
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        functional.cross_entropy(module(batch), labels).backward()
        optimizer.step()
    assert (module.eval()(batch).argmax(dim=1) == labels).float().mean() > 0.95


def test_the_form_of_the_graph():
    module, chosen = model(PAIR)
    graph = to_onnx(chosen, PAIR, weights_of(module))
    onnx.checker.check_model(graph, full_check=True)
    shapes = {
        value.name: [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    }
    assert shapes == {
        "words1": ["batch", "time1"],
        "lengths1": ["batch"],
        "words2": ["batch", "time2"],
        "lengths2": ["batch"],
        "logits": ["batch", 3],
    }


def test_words_outside_of_the_vocabulary_are_refused():
    module, chosen = model()
    with pytest.raises(IndexError):
        fast(chosen, SINGLE, weights_of(module))((np.array([[3, WORDS]]),), (np.array([2]),))


def test_foreign_weights_are_refused():
    weights = weights_of(model()[0])
    for options in ({"filters": 4}, {"widths": (3, 4, 6)}):
        with pytest.raises(ValueError, match="reshape"):
            fast(Options(**{"filters": 5, **options}), SINGLE, weights)
    del weights["filters.1.bias"]
    with pytest.raises(KeyError, match=r"filters\.1\.bias"):
        fast(Options(filters=5), SINGLE, weights)


@pytest.mark.parametrize("wrong", [{"filters": 0}, {"widths": []}, {"widths": [3, 0]}, {"dropout": 1}, {"size": 3}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        Options(**wrong)


def test_nothing_heavy_is_imported_to_predict():
    code = (
        "import sys, kd_kimcnn; print({'torch', 'numpy', 'onnx'} & set(sys.modules))\n"
        "import kd_kimcnn.trained; print({'torch', 'onnx', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]
