import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import student_forms as forms
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

import kd_bilstm
from kd_bilstm import Options, build, fast
from kd_bilstm.model import maximum, pack

SMALL = {"hidden": 5, "fc": 4}
VARIANTS = list(itertools.product(["lstm", "gru"], [1, 2, 3], ["last", "max"]))

each_variant = pytest.mark.parametrize(("cell", "layers", "pooling"), VARIANTS)
each_kind = pytest.mark.parametrize("task", [forms.SINGLE, forms.PAIR, forms.SCORE], ids=lambda task: task.name)
variants = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(["lstm", "gru"]),
        "layers": st.integers(1, 2),
        "pooling": st.sampled_from(["last", "max"]),
        "alignment": st.booleans(),
    }
)
many_lengths = st.lists(st.integers(1, 7), min_size=1, max_size=40)


def text_by_text(module, columns):
    """Logits by PyTorch's own recurrence, one text at a time, without padding."""
    texts = [
        [text[:length] for text, length in zip(torch.from_numpy(words), lengths, strict=True)]
        for words, lengths in columns
    ]
    states = []
    for column, others in zip(texts, texts[::-1], strict=True):
        states.append([])
        for text, other in zip(column, others, strict=True):
            inputs = torch.cat(module.embedding(text), dim=-1)
            if module.alignment:
                inputs = torch.cat([inputs, alignment(module, text, other).to(inputs.dtype)], dim=-1)
            outputs, result = module.rnn(inputs[:, None])
            hidden = result[0] if isinstance(module.rnn, nn.LSTM) else result
            last = torch.cat([hidden[-2, 0], hidden[-1, 0]])
            states[-1].append(last if module.pooling == "last" else outputs[:, 0].max(dim=0).values)
    return module.logits(torch.relu(module.fc(forms.compared(map(torch.stack, states)))))


def alignment(module, text, other):
    """The two inputs of each word of a text, word by word; 1 is [MASK]."""
    words = [word for word in other.tolist() if word != 1]
    vectors = {word: torch.cat(module.embedding(torch.tensor(word))).detach() for word in {*words, *text.tolist()}}
    cosine = nn.CosineSimilarity(dim=0)
    found = []
    for word in text.tolist():
        near = [float(cosine(vectors[word], vectors[one])) for one in words] if word != 1 else []
        found.append([max([0.0, *near]), float(word != 1 and word in words)])
    return torch.tensor(found, dtype=torch.float64)


def small(task=forms.SINGLE, **options):
    """Return a module and its NumPy form."""
    module, chosen = forms.model_of(kd_bilstm, task, **{**SMALL, **options})
    return module, fast(chosen, task, forms.weights_of(module))


def assert_same(module, quick, columns):
    logits = quick(*map(tuple, zip(*columns, strict=True)))
    np.testing.assert_allclose(logits, module(forms.batch_of(columns)).detach().numpy(), rtol=0, atol=1e-5)


@each_kind
@each_variant
def test_all_forms_are_pytorchs_text_by_text(task, cell, layers, pooling):
    options = {**SMALL, "cell": cell, "layers": layers, "pooling": pooling}
    for lengths, extra in (([1], 0), ([4, 1], 1), (range(1, 33), 3)):
        logits = forms.assert_all_forms_agree(kd_bilstm, text_by_text, task, lengths, extra, **options)
        assert len(logits) < 32 or logits.std(axis=0).min() > 5e-3


@each_variant
def test_alignment_of_pairs(cell, layers, pooling):
    options = {**SMALL, "cell": cell, "layers": layers, "pooling": pooling, "alignment": True}
    for lengths in ([1, 1], [4, 1], range(1, 33)):
        logits = forms.assert_all_forms_agree(kd_bilstm, text_by_text, forms.PAIR, lengths, extra=3, **options)
    assert logits.std(axis=0).min() > 5e-3


def test_alignment_by_hand():
    module, _ = small(forms.PAIR, alignment=True, embeddings="non-static")
    with torch.no_grad():
        module.embedding.trained.weight[2:5, :] = torch.eye(forms.SIZE)[:3]
        module.embedding.trained.weight[5] = torch.tensor([3.0, 4, 0, 0, 0, 0])
        module.embedding.trained.weight[6] = 0
        module.embedding.trained.weight[7] = module.embedding.trained.weight[4]
    words = torch.tensor([[2, 1, 6, 4, 9], [5, 1, 6, 7, 4]])
    expected = [[[0.6, 0], [0, 0], [0, 1], [1, 0]], [[0.6, 0], [0, 0], [0, 1], [1, 0]]]  # near, the same
    lengths = torch.tensor([4, 4])  # the last words lie beyond
    quick = fast(Options(**SMALL, alignment=True, embeddings="non-static"), forms.PAIR, forms.weights_of(module))
    for found in (module.align(words, lengths).numpy(), quick._align(words.numpy(), lengths.numpy())):
        np.testing.assert_allclose(found[:, :4], expected, atol=1e-6)


@pytest.mark.parametrize("embeddings", ["rand", "static", "non-static", "multichannel"])
def test_each_kind_of_embedding(embeddings):
    forms.assert_all_forms_agree(kd_bilstm, text_by_text, forms.SINGLE, [3, 5, 1], embeddings=embeddings, **SMALL)


@pytest.mark.parametrize("alignment", [False, True])
@each_variant
def test_gradients_are_those_text_by_text(cell, layers, pooling, alignment):
    options = {"cell": cell, "layers": layers, "pooling": pooling, "alignment": alignment, "embeddings": "multichannel"}
    # With 4 units behind the states all may be 0, and their gradients with them.
    forms.assert_same_gradients(kd_bilstm, text_by_text, hidden=5, fc=12, **options)


def test_gradient_of_equal_maxima_is_shared():
    # Words of the first text: 0, 2, 4, 5; of the second: 1, 3.
    packed = pack(torch.tensor([4, 2]), torch.device("cpu"))
    outputs = torch.tensor([0.0, 5.0, 7.0, 5.0, 7.0, 1.0]).expand(2, 6).unsqueeze(2).clone().requires_grad_()
    pooled = maximum(outputs, packed.counts)
    assert pooled[..., 0].tolist() == [[7, 5], [7, 5]]
    pooled.backward(torch.tensor([[[2.0], [3.0]], [[4.0], [5.0]]]))
    assert outputs.grad[..., 0].tolist() == [[0, 1.5, 1, 1.5, 1, 0], [0, 2.5, 2, 2.5, 2, 0]]


def test_parameters_of_the_paper():
    module = build(Options(), forms.SINGLE, 100, None, 300)
    inside = sum(parameter.numel() for parameter in module.parameters())
    assert inside - 2 * 100 * 300 == 2 * (4 * 150 * (600 + 150) + 8 * 150) + 300 * 200 + 200 + 200 * 2 + 2 == 963_002


@settings(max_examples=60, deadline=None)
@given(many_lengths, st.sampled_from([forms.SINGLE, forms.PAIR]), variants, st.integers(2, forms.WORDS))
def test_any_batch_in_small_pieces_by_threads(lengths, task, options, words):
    module, quick = small(task, **options)
    quick.cores.count = 3
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("GROUP", 3), ("ROWS", 4)):
            patch.setattr(f"kd_bilstm.trained.{name}", size)
        assert_same(module, quick, forms.columns_of(task, lengths, words=words))


@pytest.mark.parametrize("type_", [np.uint16, np.uint32, np.int32, np.int64])
def test_word_ids_of_any_type(type_):
    _, quick = small()
    ((words, lengths),) = forms.columns_of(forms.SINGLE, [3, 1, 6])
    assert np.array_equal(quick((words.astype(type_),), (lengths.astype(type_),)), quick((words,), (lengths,)))


def test_weights_of_another_student_are_refused():
    weights, gru = forms.weights_of(small(cell="gru")[0]), {**SMALL, "cell": "gru"}
    for options in ({"hidden": 6}, {"cell": "lstm"}):
        with pytest.raises(ValueError, match="reshape"):
            fast(Options(**{**gru, **options}), forms.SINGLE, weights)
    more = {**weights, **{name.replace("l0", "l1"): value for name, value in weights.items()}}
    with pytest.raises(ValueError, match="more weights"):
        fast(Options(**gru), forms.SINGLE, more)
    del weights["rnn.bias_hh_l0"]
    with pytest.raises(KeyError, match="bias_hh_l0"):
        fast(Options(**gru), forms.SINGLE, weights)


def test_calls_at_once_leave_blas_as_it_was():
    _, quick = small()
    columns = [*map(tuple, zip(*forms.columns_of(forms.SINGLE, [7] * 40), strict=True))]
    alone, before = quick(*columns), quick.cores.blas.info()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda _: quick(*columns), range(64)))
    assert all(np.array_equal(alone, one) for one in together)
    assert quick.cores.blas.info() == before
