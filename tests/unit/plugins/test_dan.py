import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from kd_dan import Options, build, fast, to_onnx
from kd_dan.trained import ngram_rows
from kdcli.api import Batch, Task
from kdcli.student.optimizers import SparseAdadelta

SINGLE = Task("single", "single", ("0", "1"))
PAIR = Task("pair", "pair", ("a", "b", "c"))
SCORE = Task("score", "pair", (), score_range=(0.0, 5.0), metric="pearson")
WORDS, SIZE, BUCKETS = 20, 6, 37

each_kind = pytest.mark.parametrize("task", [SINGLE, PAIR, SCORE], ids=lambda task: task.name)
lengths_of = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def model(task=SINGLE, **options):
    """The module, with weights so large that errors show, and its options."""
    torch.manual_seed(1)
    chosen = Options(**{"buckets": BUCKETS, "fc": 8, **options})
    module = build(chosen, task, WORDS, None, SIZE).eval()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -1, 1)
    return module, chosen


def weights_of(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


def columns_of(task, lengths, extra=0):
    """Random texts for each column; what lies beyond a text is random too."""
    numbers = np.random.default_rng(0)
    found = []
    for place in range(len(task.columns)):
        counts = np.roll(np.array(lengths), place)
        found.append((numbers.integers(1, WORDS, (len(counts), counts.max() + extra)), counts))
    return found


def batch_of(columns):
    return Batch(*(tuple(map(torch.from_numpy, part)) for part in zip(*columns, strict=True)))


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
    one, *others = map(torch.stack, states)
    parts = [one, *(part for two in others for part in (two, (one - two).abs(), one * two))]
    return module.logits(torch.relu(module.fc(torch.cat(parts, dim=1))))


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
def test_all_forms_are_averages_text_by_text(task, embeddings):
    logits = assert_all_forms_agree(task, [3, 1, 7, 3, 2, 9, 4], extra=2, embeddings=embeddings)
    assert logits.shape == (7, task.outputs)
    assert logits.std(axis=0).min() > 0.02


@settings(max_examples=20, deadline=None)
@given(lengths_of, st.integers(2, 6), st.integers(0, 3), st.integers(1, 2**31 - 1), st.sampled_from([SINGLE, PAIR]))
def test_texts_of_all_lengths_and_tables_of_all_sizes(lengths, longest, extra, buckets, task):
    assert_all_forms_agree(task, lengths, extra, ngram=longest, buckets=min(buckets, 999))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=7), st.integers(1, 2**31 - 1))
def test_hashing_never_overflows(text, buckets):
    """The largest words and tables there can be."""
    expected = [[row_of(text[at : at + n], buckets) for at in range(len(text) - n + 1)] for n in (2, 3, 4)]
    for words in (np.array([text]), torch.tensor([text])):
        assert [rows[0].tolist() for rows in ngram_rows(words, 4, buckets)] == expected


def test_hashing_spreads_as_well_as_chance():
    """Of texts like real ones, whose words are as often as Zipf says."""
    shares = 1 / np.arange(1, 15_000)
    words = np.random.default_rng(0).choice(14_999, (4000, 12), p=shares / shares.sum()) + 1
    for buckets in (2**15, 30_000, 99_991):
        for n, rows in enumerate(ngram_rows(words, 4, buckets), 2):
            different = len({tuple(text[at : at + n]) for text in words.tolist() for at in range(12 - n + 1)})
            expected = buckets * (1 - (1 - 1 / buckets) ** different)
            assert len(np.unique(rows)) > 0.99 * expected


def test_words_in_another_order_are_another_ngram():
    rows = ngram_rows(np.array([[3, 5, 3, 3, 5, 5]]), 3, 10**6)
    assert Counter(rows[0][0].tolist()).most_common(1)[0][1] == 2  # 3 5, twice
    assert len({*rows[0][0].tolist(), *rows[1][0].tolist()}) == 8


def test_a_batch_in_pieces():
    module, chosen = model(PAIR)
    columns = columns_of(PAIR, [*range(1, 40), 300] * 2)  # of about 256 words, or of one text
    quick = fast(chosen, PAIR, weights_of(module))(*map(tuple, zip(*columns, strict=True)))
    np.testing.assert_allclose(quick, module(batch_of(columns)).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_text_by_text():
    module = model(PAIR, embeddings="multichannel")[0].double()  # where the order of a sum makes little difference
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


def test_an_ngram_never_trained_says_nothing():
    torch.manual_seed(1)
    module = build(Options(buckets=BUCKETS), SINGLE, WORDS, None, SIZE)
    assert not module.ngrams.weight.any()
    words, lengths = torch.tensor([[3, 5, 7, 9]]), torch.tensor([4])
    # Four words among ten n-grams.
    expected = module.embedding.trained.weight[words[0]].sum(dim=0, keepdim=True) / 10**0.5
    torch.testing.assert_close(module.encode(words, lengths), expected)


def test_a_text_of_one_word_trains_with_sparse_gradients():
    """There is no n-gram in it, and a table without a gradient is one that stands still."""
    module = build(Options(buckets=BUCKETS), SINGLE, WORDS, None, SIZE)
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


def test_a_student_learns_the_order_of_two_words():
    torch.manual_seed(1)
    module = build(Options(buckets=1000, dropout=0), SINGLE, WORDS, None, SIZE)
    words = np.random.default_rng(0).integers(3, WORDS, (64, 9))
    words[:, 4:6] = np.where(np.arange(64)[:, None] % 2, [1, 2], [2, 1])
    batch, labels = batch_of([(words[:, 3:7], np.full(64, 4))]), torch.arange(64) % 2
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(batch), labels).backward()
        optimizer.step()
    others = batch_of([(words[::-1, 2:8].copy(), np.full(64, 6))])
    assert (module.eval()(others).argmax(dim=1) == labels.flip(0)).float().mean() > 0.9


def test_adadelta_begins_to_learn():
    """The default optimiser, whose first steps are as small as gradients below a thousandth."""
    torch.manual_seed(1)
    module = build(Options(buckets=1000), SINGLE, 500, None, 50)
    words = np.random.default_rng(0).integers(3, 500, (64, 12))
    words[::2, 7] = 1
    batch, labels = batch_of([(words, np.full(64, 12))]), torch.arange(64) % 2
    optimizer = SparseAdadelta(module.parameters())
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(batch), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.2  # with the mean in place of the sum by the root it is 0.69 still


def test_dropout_is_for_training_alone():
    module, _ = model(fc=50, dropout=0.5)
    batch = batch_of(columns_of(SINGLE, [3, 3]))
    assert torch.equal(module(batch), module(batch))
    module.train()
    assert not torch.equal(module(batch), module(batch))


def test_words_outside_of_the_vocabulary_are_refused():
    module, chosen = model()
    with pytest.raises(IndexError):
        fast(chosen, SINGLE, weights_of(module))((np.array([[3, WORDS]]),), (np.array([2]),))


def test_foreign_weights_are_refused():
    module, chosen = model()
    weights = weights_of(module)
    for name in ("ngrams.weight", "fc.bias"):
        with pytest.raises(KeyError, match=name):
            fast(chosen, SINGLE, {key: value for key, value in weights.items() if key != name})
    two_channels = {**weights, "embedding.frozen.weight": weights["embedding.trained.weight"]}
    with pytest.raises(ValueError, match="broadcast"):
        fast(chosen, SINGLE, two_channels)((np.array([[3, 5]]),), (np.array([2]),))


@pytest.mark.parametrize("wrong", [{"ngram": 1}, {"buckets": 0}, {"buckets": 2**31}, {"dropout": 1}, {"size": 3}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        Options(**wrong)


def test_nothing_heavy_is_imported_to_predict():
    code = (
        "import sys, kd_dan; print({'torch', 'numpy', 'onnx'} & set(sys.modules))\n"
        "import kd_dan.trained; print({'torch', 'onnx', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]
