import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.transfer.keys import keys, normal_keys

TEXTS = st.lists(st.one_of(st.text(max_size=30), st.text("ab\x00", max_size=20)), min_size=1, max_size=8)
BITS = 2**64 - 1


def mix(value: int) -> int:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = ((value ^ (value >> shift)) * factor) & BITS
    return value ^ (value >> 31)


def key(*fields: str) -> int:
    """Do the same in Python's own integers."""
    step, total = 0x9E3779B97F4A7C15, 0
    for field in fields:
        data = field.encode()
        eights = [data[at : at + 8] for at in range(0, len(data) // 8 * 8 + 1, 8)]
        mixed = [mix((int.from_bytes(e, "little") + (i + 1) * step) & BITS) for i, e in enumerate(eights)]
        total = mix((total * step + mix((sum(mixed) + len(data)) & BITS)) & BITS)
    return total


@settings(deadline=None)
@given(TEXTS)
def test_keys_are_what_integers_give_and_equal_for_equal_texts_alone(texts):
    found = keys([pa.array(texts, pa.string())]).tolist()
    assert found == [key(text) for text in texts]
    assert len(set(found)) == len(set(texts))


@settings(deadline=None)
@given(TEXTS, st.integers(0, 7), st.integers(0, 8))
def test_neighbours_make_no_difference(texts, first, count):
    array = pa.array(texts, pa.string())
    assert (keys([array.slice(first, count)]) == keys([array])[first : first + count]).all()


def test_fields_of_a_row_are_kept_apart():
    pairs = [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), ("bc", "a")]
    found = keys([pa.array([a for a, _ in pairs]), pa.array([b for _, b in pairs])]).tolist()
    assert found == [key(*pair) for pair in pairs]
    assert len(set(found)) == len(pairs)


def test_a_million_texts_that_are_much_alike_differ():
    texts = pa.array([f"a {i % 1000} film {i // 1000}" for i in range(1_000_000)])
    assert len(np.unique(keys([texts]))) == len(texts)


def test_white_space_is_made_equal():
    spaced, normal = pa.array([" a  b\tc ", "\u00a0", "a\u2028b"]), pa.array(["a b c", "", "a b"])
    assert (normal_keys([spaced]) == keys([normal])).all()
    assert normal_keys([pa.array(["ab"])]) != normal_keys([pa.array(["a b"])])
    assert normal_keys([pa.chunked_array([[" a"], ["b "]])]).tolist() == [key("a"), key("b")]
    assert normal_keys([pa.array([], pa.string())]).tolist() == []
