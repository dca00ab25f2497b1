import numpy as np
import pytest
import student_forms as forms
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import kd_kimcnn
from kd_kimcnn import Options, build, fast

each_kind = pytest.mark.parametrize("task", [forms.SINGLE, forms.PAIR, forms.SCORE], ids=lambda task: task.name)
lengths_of = st.lists(st.integers(1, 9), min_size=1, max_size=8)
widths_of = st.lists(st.integers(1, 6), min_size=1, max_size=3)


def text_by_text(module, columns):
    """Logits by PyTorch's own convolution: each text alone, between as many zeros as each filter can reach."""
    states = []
    for words, lengths in columns:
        states.append([])
        for text, length in zip(torch.from_numpy(words), lengths, strict=True):
            vectors = torch.cat(module.embedding(text[:length]), dim=1).T  # [size, length]
            highest = []
            for filters in module.filters:
                zeros = vectors.new_zeros(len(vectors), filters.kernel_size[0] - 1)
                text_and_zeros = torch.cat([zeros, vectors, zeros], dim=1)
                values = functional.conv1d(text_and_zeros[None], filters.weight, filters.bias)[0]
                highest.append(torch.relu(values.max(dim=1).values))
            states[-1].append(torch.cat(highest))
    return module.logits(forms.compared(map(torch.stack, states)))


def assert_forms(task, lengths, extra=0, **options):
    return forms.assert_all_forms_agree(kd_kimcnn, text_by_text, task, lengths, extra, **{"filters": 5, **options})


@each_kind
@pytest.mark.parametrize("embeddings", ["rand", "static", "non-static", "multichannel"])
def test_all_forms_are_a_convolution_text_by_text(task, embeddings):
    logits = assert_forms(task, [3, 1, 7, 3, 2, 9, 4], extra=2, embeddings=embeddings)
    assert logits.shape == (7, task.outputs)
    assert logits.std(axis=0).min() > 0.05


@settings(max_examples=20, deadline=None)
@given(lengths_of, widths_of, st.integers(0, 3), st.sampled_from([forms.SINGLE, forms.PAIR]))
def test_texts_of_all_lengths_under_filters_of_all_widths(lengths, widths, extra, task):
    assert_forms(task, lengths, extra, widths=widths, filters=3)


def test_words_come_one_batch_after_the_other():
    module, chosen = forms.model_of(kd_kimcnn, forms.SINGLE, filters=5)
    quick = fast(chosen, forms.SINGLE, forms.weights_of(module))
    for words in (3, 8, forms.WORDS, 8):
        columns = forms.columns_of(forms.SINGLE, [4, 2, 6], words=words)
        wanted = module(forms.batch_of(columns)).detach().numpy()
        np.testing.assert_allclose(quick(*map(tuple, zip(*columns, strict=True))), wanted, rtol=1e-5, atol=1e-5)


def test_sizes_of_the_paper():
    module = build(Options(), forms.SINGLE, 100, None, 300)
    inside = sum(parameter.numel() for parameter in module.parameters()) - 2 * 100 * 300
    assert inside == 100 * (3 + 4 + 5) * 600 + 300 + 300 * 2 + 2
    assert module.dropout.p == 0.5


def test_foreign_weights_are_refused():
    weights = forms.weights_of(forms.model_of(kd_kimcnn, forms.SINGLE, filters=5)[0])
    for options in ({"filters": 4}, {"widths": (3, 4, 6)}):
        with pytest.raises(ValueError, match="reshape"):
            fast(Options(**{"filters": 5, **options}), forms.SINGLE, weights)
    del weights["filters.1.bias"]
    with pytest.raises(KeyError, match=r"filters\.1\.bias"):
        fast(Options(filters=5), forms.SINGLE, weights)
