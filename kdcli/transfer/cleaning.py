"""Texts from elsewhere made plain: what samples and the user's own texts go through (Tang, Lu, Lin 2019, "Cleaning").

Nothing here is done to the task's own texts in a table; ``one_line`` is for a generator's copy of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kdcli.api import Task
from kdcli.transfer.keys import Keys, keys

_SPACES = r"\t-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # what str.split takes, but " "
_DROPPED = r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff"
_NOT_PRINTED = re.compile(f"[{_DROPPED}]")
_LINE_ENDS = re.compile(r"[\t-\r\x1c-\x1e\x85\u2028\u2029]+")  # what str.splitlines takes, and the tab
# Arrow's regular expressions know no \u.
_UNCLEAN = re.sub(r"\\u(\w{4})", r"\\x{\1}", f"^ | $|  |[{_SPACES}{_DROPPED}]")


def clean(text: str) -> str:
    """Make a text plain.

    This is changed, and nothing else:

    - Control characters that are no white space (U+0000-0008, 000E-001B, 007F-0084, 0086-009F) and byte order marks
      (U+FEFF) are dropped.
    - Each run of white space becomes one space: tabs, line ends of any kind (LF, CR, U+000B, 000C, 001C-001E, 0085,
      2028, 2029), no-break spaces and all other spaces of Unicode.
    - White space at the ends is dropped, so that a blank text is empty.
    """
    return " ".join(_NOT_PRINTED.sub("", text).split())


def clean_column(texts: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Make each text of a column plain, as ``clean`` does; texts that are so already take no time.

    Args:
        texts: Strings without nulls.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    unclean = pc.match_substring_regex(texts, _UNCLEAN)
    mended = [clean(text) for text in texts.filter(unclean).to_pylist()]
    return pc.replace_with_mask(texts, unclean, pa.array(mended, pa.string())) if mended else texts


def clean_keys(tables: Sequence[pa.Table], task: Task) -> Keys:
    """Hash the texts of the task in all rows of some tables as they would be if they were clean.

    These are the keys that clean texts are compared with: one without its control characters is a copy all the same.
    """
    found = [keys([clean_column(table[name]) for name in task.columns]) for table in tables]
    return np.concatenate([np.zeros(0, np.uint64), *found])


def split_pair(text: str) -> tuple[str, str] | None:
    """Cut a pair at its only tab and make both sides plain.

    Returns:
        The two texts; None where the text has not exactly one tab, or none but white space on a side of it.
    """
    first, *others = map(clean, text.split("\t"))
    return (first, others[0]) if len(others) == 1 and first and others[0] else None


def one_line(text: str) -> str:
    """Bring a text of the task into one line without a tab, for a generator to learn from.

    Each run of tabs and line ends (of any kind that ``str.splitlines`` knows) becomes one space, and white space at
    the ends is dropped. All else stays: other white space, and characters that are not printed.
    """
    return _LINE_ENDS.sub(" ", text).strip()
