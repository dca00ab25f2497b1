from dataclasses import replace

import numpy as np
import pytest

from kdcli.lm.texts import TokenRows

ROWS = TokenRows(
    fields={"input_ids": np.array([5, 6, 7, 8, 9, 4], np.int32), "labels": np.array([-100, 6, 7, -100, 9, -100])},
    padding={"input_ids": 0, "labels": -100},
    offsets=np.array([0, 3, 5, 6]),
)


def test_rows_are_cut_out_and_padded():
    batch = {name: values.tolist() for name, values in ROWS.batch([2, 0]).items()}
    assert (len(ROWS), ROWS.lengths.tolist()) == (3, [3, 2, 1])
    assert batch == {
        "attention_mask": [[1, 0, 0], [1, 1, 1]],
        "input_ids": [[4, 0, 0], [5, 6, 7]],
        "labels": [[-100, -100, -100], [-100, 6, 7]],
    }


def test_padding_stands_on_the_left_if_asked():
    assert replace(ROWS, left=True).batch([1, 0])["input_ids"].tolist() == [[0, 8, 9], [5, 6, 7]]


@pytest.mark.parametrize(
    "other",
    [
        {"labels": np.zeros(3)},
        {"offsets": np.array([0, 2, 5, 6])},
        {"fields": ROWS.fields | {"input_ids": np.array([5, 6, 7, 8, 9, 3], np.int32)}},
    ],
)
def test_the_digest_depends_on_all_arrays(other):
    assert ROWS.digest == replace(ROWS).digest != replace(ROWS, **other).digest
