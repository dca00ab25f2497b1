"""Arrow strings made without ``pa.array`` and ``pa.scalar``.

Those import pandas where there is one: a fifth of a second for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa


def strings(texts: Sequence[str]) -> pa.StringArray:
    """Return texts as an array of less than 2 GB."""
    encoded = [text.encode() for text in texts]
    offsets = np.fromiter(accumulate(map(len, encoded), initial=0), np.int32, len(encoded) + 1)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def is_unicode(text: str) -> bool:
    """Return whether a string holds characters alone: half of a surrogate pair is none, and nothing can be written."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def scalar(text: str) -> pa.StringScalar:
    """Return a text as a scalar."""
    return strings([text])[0]
