"""What the tests of the student plugins share: tasks, random texts, and a model in all its forms."""

import itertools

import numpy as np
import onnxruntime
import torch
from torch import nn

from kdcli.api import Batch, Task

SINGLE = Task("single", "single", ("0", "1"))
PAIR = Task("pair", "pair", ("a", "b", "c"))
SCORE = Task("score", "pair", (), score_range=(0.0, 5.0), metric="pearson")
WORDS, SIZE = 20, 6


def model_of(plugin, task, **options):
    """Build a module, with weights so large that errors show, and its options."""
    torch.manual_seed(1)
    chosen = plugin.Options(**options)
    module = plugin.build(chosen, task, WORDS, None, SIZE).eval()
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
        counts = np.roll(np.array(list(lengths), np.int64), place)
        found.append((numbers.integers(1, words, (len(counts), counts.max() + extra)), counts))
    return found


def batch_of(columns):
    return Batch(*(tuple(map(torch.from_numpy, part)) for part in zip(*columns, strict=True)))


def by_numpy(plugin, options, task, module, columns):
    return plugin.fast(options, task, weights_of(module))(*map(tuple, zip(*columns, strict=True)))


def by_onnx(plugin, options, task, module, columns):
    graph = plugin.to_onnx(options, task, weights_of(module)).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(["logits"], dict(zip(names, itertools.chain(*columns), strict=True)))[0]


def compared(states):
    """Put the states of the text columns together as the papers do."""
    one, *others = states
    return torch.cat([one, *(part for two in others for part in (two, (one - two).abs(), one * two))], dim=1)


def assert_all_forms_agree(plugin, text_by_text, task, lengths, extra=0, **options):
    """Compare the module, NumPy and ONNX with a computation of each text alone; return the logits."""
    module, chosen = model_of(plugin, task, **options)
    columns = columns_of(task, lengths, extra)
    expected = text_by_text(module, columns)
    torch.testing.assert_close(module(batch_of(columns)), expected, rtol=1e-5, atol=1e-5)
    wanted = expected.detach().numpy()
    for form in (by_numpy, by_onnx):
        logits = form(plugin, chosen, task, module, columns)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)
    return wanted


def assert_same_gradients(plugin, text_by_text, **options):
    """Compare the gradients with those of a computation of each text alone."""
    module = model_of(plugin, PAIR, **options)[0].double()  # where the order of a sum makes little difference
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
