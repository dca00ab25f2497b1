import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from student_forms import PAIR, SCORE, SINGLE, SIZE, WORDS, weights_of

from kd_bilstm import Options, build, fast
from kd_bilstm.folded import levels, near, reverse
from kdcli.api import Batch

each_variant = pytest.mark.parametrize(
    ("cell", "layers", "pooling"), list(itertools.product(["lstm", "gru"], [1, 2, 3], ["last", "max"]))
)
each_kind = pytest.mark.parametrize("task", [SINGLE, PAIR, SCORE], ids=lambda task: task.name)
lengths_of = st.lists(st.integers(1, 7), min_size=1, max_size=40)


def models(task=SINGLE, **options):
    """The module, with weights so large that errors show, and its fast form."""
    torch.manual_seed(1)
    chosen = Options(**{"hidden": 5, "fc": 16, **options})
    module = build(chosen, task, WORDS, None, SIZE).eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight *= 2
    return module, fast(chosen, task, weights_of(module))


def texts(lengths, seed=0, extra=0, words=WORDS):
    """Random texts of these lengths; with few different words, many begin and end alike."""
    lengths = np.array(lengths)
    ids = np.random.default_rng(seed).integers(1, words, (len(lengths), lengths.max() + extra))
    return np.where(np.arange(ids.shape[1]) < lengths[:, None], ids, 0), lengths


def columns(task, lengths, **options):
    """Texts for each column; the second's lengths are the first's the other way round."""
    given = [texts(lengths[:: 1 - 2 * number], seed=number, **options) for number in range(len(task.columns))]
    return tuple(words for words, _ in given), tuple(lengths for _, lengths in given)


def assert_same(module, quick, given):
    with torch.no_grad():
        expected = module(Batch(*(tuple(map(torch.from_numpy, part)) for part in given))).numpy()
    logits = quick(*given)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    return logits


@each_kind
@each_variant
@pytest.mark.parametrize("embeddings", ["static", "multichannel"])
def test_logits_are_the_modules(task, cell, layers, pooling, embeddings):
    module, quick = models(task, cell=cell, layers=layers, pooling=pooling, embeddings=embeddings)
    given = columns(task, [3, 1, 7, 3, 2, 7, 4, 1], extra=3)
    assert assert_same(module, quick, given).std() > 0.005
    assert_same(module, quick, columns(task, [5, 2, 7, 6, 6, 1], words=4))
    assert_same(module, quick, tuple(tuple(part[2:3] for part in parts) for parts in given))  # one row has its own way


@settings(max_examples=60, deadline=None)
@given(
    lengths_of,
    st.sampled_from([SINGLE, PAIR]),
    st.sampled_from(["lstm", "gru"]),
    st.integers(1, 2),
    st.sampled_from(["last", "max"]),
    st.integers(2, WORDS),
)
def test_any_batch_in_small_pieces_by_threads(lengths, task, cell, layers, pooling, words):
    module, quick = models(task, cell=cell, layers=layers, pooling=pooling)
    quick.cores.count = 3
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("BLOCK", 3), ("WORDS", 20), ("ROWS", 4)):
            patch.setattr(f"kd_bilstm.folded.{name}", size)
        patch.setattr("kd_bilstm.folded.FILL", 5)
        assert_same(module, quick, columns(task, lengths, words=words))


def test_the_size_of_the_paper_over_long_texts():
    torch.manual_seed(1)
    module = build(Options(), SINGLE, 500, None, 300).eval()
    quick = fast(Options(), SINGLE, weights_of(module))
    assert_same(module, quick, columns(SINGLE, [128, 9, 1, 40, 128], words=500))
    assert_same(module, quick, columns(SINGLE, [128], words=500))


@each_variant
def test_what_lies_beyond_a_text_makes_no_difference(cell, layers, pooling):
    _, quick = models(cell=cell, layers=layers, pooling=pooling)
    words, lengths = texts([3, 1, 6, 3, 2], extra=2)
    scrawled = np.where(np.arange(words.shape[1]) < lengths[:, None], words, WORDS - 1)
    assert not np.array_equal(words, scrawled)
    np.testing.assert_allclose(quick((scrawled,), (lengths,)), quick((words,), (lengths,)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("type_", [np.uint16, np.uint32, np.int32, np.int64])
def test_word_ids_of_any_type(type_):
    module, quick = models()
    words, lengths = texts([3, 1, 6])
    expected = assert_same(module, quick, ((words,), (lengths,)))
    assert np.array_equal(quick((words.astype(type_),), (lengths.astype(type_),)), expected)


@settings(max_examples=100, deadline=None)
@given(lengths_of, st.integers(2, 5), st.booleans())
def test_the_tree_has_each_prefix_once(lengths, words, backward):
    ids, lengths = texts(lengths, words=words)
    order = near(ids, lengths, backward=backward)
    assert sorted(order) == list(range(len(lengths)))
    ids, lengths = ids[order], lengths[order]
    wanted = [tuple(text[:length])[:: -1 if backward else 1] for text, length in zip(ids, lengths, strict=True)]
    before, seen = [()], set()
    for time, level in enumerate(levels(reverse(ids, lengths) if backward else ids, lengths), 1):
        prefixes = [(*before[parent], word) for word, parent in zip(level.ids, level.parents, strict=True)]
        assert len(set(prefixes)) == len(prefixes)
        assert [prefixes[node] for node in level.nodes] == [wanted[text][:time] for text in level.texts]
        assert level.texts[level.ends].tolist() == np.flatnonzero(lengths == time).tolist()
        before = prefixes
        seen |= set(prefixes)
    assert seen == {text[:time] for text in wanted for time in range(1, len(text) + 1)}


def test_words_enter_the_table_when_they_come():
    _, quick = models()

    def there():
        return set(range(WORDS)) - set(np.concatenate(quick.words.missing(np.arange(WORDS))).tolist())

    assert there() == set()
    quick((np.array([[3, 5]]),), (np.array([2]),))
    assert there() == {3, 5}
    quick((np.array([[3, 5, 7], [9, 0, 0]]),), (np.array([3, 1]),))
    assert there() == {0, 3, 5, 7, 9}


def test_foreign_weights_are_refused():
    module, _ = models(cell="gru")
    weights = weights_of(module)
    for options in ({"hidden": 6}, {"cell": "lstm"}):
        with pytest.raises(ValueError, match="reshape"):
            fast(Options(**{"hidden": 5, "fc": 16, "cell": "gru", **options}), SINGLE, weights)
    more = {**weights, **{name.replace("l0", "l1"): value for name, value in weights.items()}}
    with pytest.raises(ValueError, match="more weights"):
        fast(Options(hidden=5, fc=16, cell="gru"), SINGLE, more)
    del weights["rnn.bias_hh_l0"]
    with pytest.raises(KeyError, match="bias_hh_l0"):
        fast(Options(hidden=5, fc=16, cell="gru"), SINGLE, weights)


def test_calls_at_once_leave_blas_as_it_was():
    _, quick = models()
    given = columns(SINGLE, [7] * 40)
    alone, before = quick(*given), quick.cores.blas.info()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda _: quick(*given), range(64)))
    assert all(np.array_equal(alone, one) for one in together)
    assert quick.cores.blas.info() == before
