import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_forms import PAIR, SINGLE, SIZE, WORDS
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kd_bilstm import Options, build
from kd_bilstm.model import maximum, pack
from kdcli import registry
from kdcli.api import Batch
from kdcli.errors import ProfileError

each_variant = pytest.mark.parametrize(
    ("cell", "layers", "pooling"), list(itertools.product(["lstm", "gru"], [1, 2], ["last", "max"]))
)
each_kind = pytest.mark.parametrize("task", [SINGLE, PAIR], ids=lambda task: task.name)

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


def batch_of(task, lengths=((3, 1, 7, 3, 2), (1, 5, 2, 2, 4)), extra=0):
    """Random texts of these lengths, those of each column its own."""
    columns = [padded(lengths[number], seed=number, extra=extra) for number in range(len(task.columns))]
    return Batch(tuple(words for words, _ in columns), tuple(lengths for _, lengths in columns))


def by_torch(module, words, lengths, pooling="last"):
    """Pooled states by PyTorch's own recurrence, one text at a time, without padding."""
    states = []
    for text, length in zip(words, lengths, strict=True):
        vectors = torch.cat(module.embedding(text[:length]), dim=-1)
        outputs, result = module.rnn(vectors[:, None])
        hidden = result[0] if isinstance(module.rnn, nn.LSTM) else result
        last = torch.cat([hidden[-2, 0], hidden[-1, 0]])
        states.append(last if pooling == "last" else outputs[:, 0].max(dim=0).values)
    return torch.stack(states)


def logits_by_torch(module, batch, pooling):
    """Logits by PyTorch's own recurrence over packed sequences."""
    states = []
    for words, lengths in zip(batch.words, batch.lengths, strict=True):
        vectors = torch.cat(module.embedding(words), dim=-1)
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        outputs, result = module.rnn(packed)
        hidden = result[0] if isinstance(module.rnn, nn.LSTM) else result
        every, _ = pad_packed_sequence(outputs, batch_first=True, padding_value=-torch.inf)
        states.append(torch.cat([hidden[-2], hidden[-1]], dim=1) if pooling == "last" else every.max(dim=1).values)
    if len(states) == 2:
        one, two = states
        states = [one, two, (one - two).abs(), one * two]
    return module.logits(torch.relu(module.fc(torch.cat(states, dim=1))))


def gradients(module, logits):
    module.zero_grad()
    (logits.square() @ torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype)).sum().backward()
    return {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}


@settings(max_examples=25, deadline=None)
@given(
    lengths_of,
    st.sampled_from(["lstm", "gru"]),
    st.integers(1, 3),
    st.sampled_from(["last", "max"]),
    st.integers(0, 3),
)
def test_recurrence_is_pytorchs_text_by_text(lengths, cell, layers, pooling, extra):
    module = model(cell=cell, layers=layers, pooling=pooling)
    words, lengths = padded(lengths, extra=extra)
    expected = by_torch(module, words, lengths, pooling)
    torch.testing.assert_close(module.encode(words, lengths), expected, rtol=1e-5, atol=1e-6)


@each_kind
@each_variant
def test_logits_and_gradients_are_pytorchs(task, cell, layers, pooling):
    module = model(task, cell=cell, layers=layers, pooling=pooling, embeddings="multichannel")
    batch = batch_of(task, extra=1)
    torch.testing.assert_close(module(batch), logits_by_torch(module, batch, pooling), rtol=0, atol=1e-6)
    module = module.double()  # where the order of a sum makes little difference
    ours, theirs = module(batch), logits_by_torch(module, batch, pooling)
    found, expected = gradients(module, ours), gradients(module, theirs)
    assert found.keys() == expected.keys()
    assert set(expected) == {name for name, _ in module.named_parameters()} - {"embedding.frozen.weight"}
    for name, value in expected.items():
        assert value.abs().max() > 0
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10)


@each_kind
@each_variant
def test_what_lies_beyond_a_text_makes_no_difference(task, cell, layers, pooling):
    module = model(task, cell=cell, layers=layers, pooling=pooling)
    batch = batch_of(task, extra=2)
    scrawled = tuple(
        words.where(torch.arange(words.shape[1]) < lengths[:, None], WORDS - 1)
        for words, lengths in zip(batch.words, batch.lengths, strict=True)
    )
    assert not any(map(torch.equal, batch.words, scrawled))
    assert torch.equal(module(batch), module(Batch(scrawled, batch.lengths)))


@pytest.mark.parametrize("layers", [1, 2])
def test_pooling_of_one_word_is_its_state(layers):
    last, highest = (model(layers=layers, pooling=pooling) for pooling in ("last", "max"))
    words, lengths = padded([1, 1, 1])
    assert torch.equal(last.encode(words, lengths), highest.encode(words, lengths))
    words, lengths = padded([1, 4, 2])
    alike = last.encode(words, lengths) == highest.encode(words, lengths)
    assert alike[0].all() and not alike[1].all() and not alike[2].all()


@settings(max_examples=25, deadline=None)
@given(lengths_of, st.integers(0, 99))
def test_gradient_of_the_maximum(lengths, seed):
    packed = pack(*padded(lengths))
    numbers = torch.Generator().manual_seed(seed)
    outputs = torch.rand(2, sum(lengths), 3, generator=numbers, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda outputs: maximum(outputs, packed.counts), (outputs,))


def test_gradient_of_equal_maxima_is_shared():
    packed = pack(*padded([4, 2]))  # words of the first text: 0, 2, 4, 5; of the second: 1, 3
    outputs = torch.tensor([0.0, 5.0, 7.0, 5.0, 7.0, 1.0]).expand(2, 6).unsqueeze(2).clone().requires_grad_()
    pooled = maximum(outputs, packed.counts)
    assert pooled[..., 0].tolist() == [[7, 5], [7, 5]]
    pooled.backward(torch.tensor([[[2.0], [3.0]], [[4.0], [5.0]]]))
    assert outputs.grad[..., 0].tolist() == [[0, 1.5, 1, 1.5, 1, 0], [0, 2.5, 2, 2.5, 2, 0]]


@pytest.mark.parametrize("pooling", ["last", "max"])
def test_a_student_learns_whether_word_1_is_there(pooling):
    module = model(pooling=pooling, hidden=8).train()
    words, lengths = padded([2, 3, 4, 5] * 16)
    words[::2, 1] = 1
    labels = (words == 1).any(dim=1).long()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(Batch((words,), (lengths,))), labels).backward()
        optimizer.step()
    assert 16 < labels.sum() < 48
    assert (module.eval()(Batch((words,), (lengths,))).argmax(dim=1) == labels).float().mean() > 0.95


def test_parameters_of_the_paper():
    module = build(Options(), SINGLE, 100, None, 300)
    inside = sum(parameter.numel() for parameter in module.parameters())
    assert inside - 2 * 100 * 300 == 2 * (4 * 150 * (600 + 150) + 8 * 150) + 300 * 200 + 200 + 200 * 2 + 2 == 963_002


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


def test_a_pooling_that_is_not_there_is_named():
    with pytest.raises(ProfileError) as caught:
        registry.options("students", "bilstm", {"pooling": "mean"})
    assert caught.value.key == "students.bilstm.pooling"
    assert "'last' or 'max'" in str(caught.value)
