import numpy as np
import pytest
import student_forms as forms
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional

import kd_dan
import kd_kimcnn
from kd_dan import Options, build, fast, ngram_rows
from kdcli.api import Batch
from kdcli.student.optimize import SparseAdadelta

BUCKETS = 37

each_kind = pytest.mark.parametrize("task", [forms.SINGLE, forms.PAIR, forms.SCORE], ids=lambda task: task.name)
tasks = st.sampled_from([forms.SINGLE, forms.PAIR])
lengths_of = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def row_of(ngram, buckets):
    """A polynomial of the words by Python's own whole numbers, which know no overflow."""
    return sum(word * 1_000_003_919**power for power, word in enumerate(reversed(ngram), 1)) % (2**31 - 1) % buckets


def text_by_text(module, columns):
    """Logits by a loop over the n-grams of each text alone."""
    states = []
    for words, lengths in columns:
        states.append([])
        for text, length in zip(words.tolist(), lengths, strict=True):
            text, vectors = text[:length], []
            for word in text:
                channels = (module.embedding.trained, module.embedding.frozen)
                vectors.append(torch.cat([channel.weight[word] for channel in channels if channel is not None]))
            for size in range(2, module.longest + 1):
                for first in range(length - size + 1):
                    row = row_of(text[first : first + size], module.ngrams.num_embeddings)
                    vectors.append(module.ngrams.weight[row])
            states[-1].append(sum(vectors) / len(vectors) ** 0.5)
    return module.logits(torch.relu(module.fc(forms.compared(map(torch.stack, states)))))


def assert_forms(task, lengths, extra=0, **options):
    options = {"buckets": BUCKETS, "fc": 8, **options}
    return forms.assert_all_forms_agree(kd_dan, text_by_text, task, lengths, extra, **options)


@each_kind
@pytest.mark.parametrize("embeddings", ["rand", "static", "non-static", "multichannel"])
def test_all_forms_are_averages_or_convolutions_text_by_text(task, embeddings):
    for forms_agree in (assert_forms, assert_convolutions):
        logits = forms_agree(task, [3, 1, 7, 3, 2, 9, 4], extra=2, embeddings=embeddings)
        assert logits.shape == (7, task.outputs)
        assert logits.std(axis=0).min() > 0.02


@settings(max_examples=20, deadline=None)
@given(lengths_of, st.integers(2, 6), st.integers(0, 3), st.integers(1, 2**31 - 1), tasks)
def test_texts_of_all_lengths_and_tables_of_all_sizes(lengths, longest, extra, buckets, task):
    assert_forms(task, lengths, extra, ngram=longest, buckets=min(buckets, 999))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=7), st.integers(1, 2**31 - 1))
def test_hashing_never_overflows(text, buckets):
    expected = [[row_of(text[at : at + n], buckets) for at in range(len(text) - n + 1)] for n in (2, 3, 4)]
    for words in (np.array([text]), torch.tensor([text])):
        assert [rows[0].tolist() for rows in ngram_rows(words, 4, buckets)] == expected


def test_an_ngram_never_trained_says_nothing_and_a_text_of_one_word_trains_with_sparse_gradients():
    torch.manual_seed(1)
    module = build(Options(buckets=BUCKETS), forms.SINGLE, forms.WORDS, None, forms.SIZE)
    assert not module.ngrams.weight.any()
    words, lengths = torch.tensor([[3, 5, 7, 9]]), torch.tensor([4])
    # Four words among ten n-grams.
    expected = module.embedding.trained.weight[words[0]].sum(dim=0, keepdim=True) / 10**0.5
    torch.testing.assert_close(module.encode(words, lengths), expected)
    module = build(Options(buckets=BUCKETS), forms.SINGLE, forms.WORDS, None, forms.SIZE)
    module.embedding.trained.sparse = module.ngrams.sparse = True
    optimizer = SparseAdadelta(module.parameters())
    for words in ([[3], [5]], [[3, 5], [5, 3]]):
        before = module.ngrams.weight.clone()
        optimizer.zero_grad()
        batch = Batch((torch.tensor(words),), (torch.tensor([len(text) for text in words]),))
        nn.functional.cross_entropy(module(batch), torch.tensor([0, 1])).backward()
        optimizer.step()
        moved = set((module.ngrams.weight != before).any(dim=1).nonzero()[:, 0].tolist())
        assert moved == {row_of(text, BUCKETS) for text in words if len(text) > 1}


def test_weights_of_another_student_are_refused():
    module, chosen = forms.model_of(kd_dan, forms.SINGLE, buckets=BUCKETS, fc=8)
    weights = forms.weights_of(module)
    for name in ("ngrams.weight", "fc.bias"):
        with pytest.raises(KeyError, match=name):
            fast(chosen, forms.SINGLE, {key: value for key, value in weights.items() if key != name})
    two_channels = {**weights, "embedding.frozen.weight": weights["embedding.trained.weight"]}
    with pytest.raises(ValueError, match="broadcast"):
        fast(chosen, forms.SINGLE, two_channels)((np.array([[3, 5]]),), (np.array([2]),))
    weights = forms.weights_of(forms.model_of(kd_kimcnn, forms.SINGLE, filters=5)[0])
    for options in ({"filters": 4}, {"widths": (3, 4, 6)}):
        with pytest.raises(ValueError, match="reshape"):
            kd_kimcnn.fast(kd_kimcnn.Options(**{"filters": 5, **options}), forms.SINGLE, weights)
    del weights["filters.1.bias"]
    with pytest.raises(KeyError, match=r"filters\.1\.bias"):
        kd_kimcnn.fast(kd_kimcnn.Options(filters=5), forms.SINGLE, weights)


widths_of = st.lists(st.integers(1, 6), min_size=1, max_size=3)


def convolved_by_text(module, columns):
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


def assert_convolutions(task, lengths, extra=0, **options):
    return forms.assert_all_forms_agree(kd_kimcnn, convolved_by_text, task, lengths, extra, **{"filters": 5, **options})


@settings(max_examples=20, deadline=None)
@given(lengths_of, widths_of, st.integers(0, 3), tasks)
def test_texts_of_all_lengths_under_filters_of_all_widths(lengths, widths, extra, task):
    assert_convolutions(task, lengths, extra, widths=widths, filters=3)


def test_words_come_one_batch_after_the_other():
    module, chosen = forms.model_of(kd_kimcnn, forms.SINGLE, filters=5)
    quick = kd_kimcnn.fast(chosen, forms.SINGLE, forms.weights_of(module))
    for words in (3, 8, forms.WORDS, 8):
        columns = forms.columns_of(forms.SINGLE, [4, 2, 6], words=words)
        wanted = module(forms.batch_of(columns)).detach().numpy()
        np.testing.assert_allclose(quick(*map(tuple, zip(*columns, strict=True))), wanted, rtol=1e-5, atol=1e-5)


def test_sizes_of_the_paper():
    module = kd_kimcnn.build(kd_kimcnn.Options(), forms.SINGLE, 100, None, 300)
    inside = sum(parameter.numel() for parameter in module.parameters()) - 2 * 100 * 300
    assert inside == 100 * (3 + 4 + 5) * 600 + 300 + 300 * 2 + 2
    assert module.dropout.p == 0.5
