import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_forms import PAIR, SCORE, SINGLE, SIZE, WORDS, assert_all_forms_agree, compared, model_of, weights_of
from torch import nn

import kd_dan
from kd_dan import Options, build, fast, ngram_rows
from kdcli.api import Batch
from kdcli.student.optimize import SparseAdadelta

BUCKETS = 37

each_kind = pytest.mark.parametrize("task", [SINGLE, PAIR, SCORE], ids=lambda task: task.name)
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
    return module.logits(torch.relu(module.fc(compared(map(torch.stack, states)))))


def assert_forms(task, lengths, extra=0, **options):
    return assert_all_forms_agree(
        kd_dan, text_by_text, task, lengths, extra, **{"buckets": BUCKETS, "fc": 8, **options}
    )


@each_kind
@pytest.mark.parametrize("embeddings", ["rand", "static", "non-static", "multichannel"])
def test_all_forms_are_averages_text_by_text(task, embeddings):
    logits = assert_forms(task, [3, 1, 7, 3, 2, 9, 4], extra=2, embeddings=embeddings)
    assert logits.shape == (7, task.outputs)
    assert logits.std(axis=0).min() > 0.02


@settings(max_examples=20, deadline=None)
@given(lengths_of, st.integers(2, 6), st.integers(0, 3), st.integers(1, 2**31 - 1), st.sampled_from([SINGLE, PAIR]))
def test_texts_of_all_lengths_and_tables_of_all_sizes(lengths, longest, extra, buckets, task):
    assert_forms(task, lengths, extra, ngram=longest, buckets=min(buckets, 999))


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


def test_adadelta_begins_to_learn():
    """The default optimiser, whose first steps are as small as gradients below a thousandth."""
    torch.manual_seed(1)
    module = build(Options(buckets=1000), SINGLE, 500, None, 50)
    words = np.random.default_rng(0).integers(3, 500, (64, 12))
    words[::2, 7] = 1
    batch, labels = Batch((torch.from_numpy(words),), (torch.full((64,), 12),)), torch.arange(64) % 2
    optimizer = SparseAdadelta(module.parameters())
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(batch), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.2  # with the mean in place of the sum by the root it is 0.69 still


def test_foreign_weights_are_refused():
    module, chosen = model_of(kd_dan, SINGLE, buckets=BUCKETS, fc=8)
    weights = weights_of(module)
    for name in ("ngrams.weight", "fc.bias"):
        with pytest.raises(KeyError, match=name):
            fast(chosen, SINGLE, {key: value for key, value in weights.items() if key != name})
    two_channels = {**weights, "embedding.frozen.weight": weights["embedding.trained.weight"]}
    with pytest.raises(ValueError, match="broadcast"):
        fast(chosen, SINGLE, two_channels)((np.array([[3, 5]]),), (np.array([2]),))
