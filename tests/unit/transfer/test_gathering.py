import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kdcli.transfer.gathering import distinct

KEYS = st.lists(st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 2, 2**64 - 1]), max_size=12)


def one_by_one(made, originals, held_out):
    """Do the same with a set."""
    seen, keep, copies = set(originals), [], set()
    duplicates = 0
    for key in made:
        duplicates += key in seen
        keep.append(key not in seen and key not in held_out)
        copies |= {key} if key not in seen and key in held_out else set()
        seen.add(key)
    return keep, duplicates, len(copies)


@settings(deadline=None)
@given(KEYS, KEYS, KEYS)
def test_keeps_what_a_set_would_keep(made, originals, held_out):
    arrays = [np.array(keys, np.uint64) for keys in (made, originals, held_out)]
    keep, duplicates, copies = distinct(*arrays)
    assert (keep.tolist(), duplicates, copies) == one_by_one(made, originals, held_out)
    assert keep.sum() + duplicates + copies == len(made)
