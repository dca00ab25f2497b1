"""Plain texts: what samples and the user's own texts go through (Tang, Lu, Lin 2019, "Cleaning").

The task's own texts stay as they are in every table; ``one_line`` is for a generator's copy of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

_WHITE = r"[\s\x1c-\x1f]"  # the characters at which str.split cuts
WORD = r"[^\s\x1c-\x1f]+"
"""A word: what white space separates, as a regular expression."""
_CONTROLS = r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u{feff}]"
_LINE_ENDS = r"[\t-\r\x1c-\x1e\x85\u{2028}\u{2029}]+"  # those of str.splitlines, and the tab


def spaced(text: pl.Expr) -> pl.Expr:
    """Put one space between words and none at the ends, as ``" ".join(text.split())`` does."""
    return text.str.replace_all(f"{_WHITE}+", " ").str.strip_chars(" ")


def clean(text: pl.Expr) -> pl.Expr:
    """Drop control characters that are no white space, and byte order marks; then make the white space equal."""
    return spaced(text.str.replace_all(_CONTROLS, ""))


def split_pairs(texts: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
    """Cut pairs at their only tab and make both sides plain.

    Returns:
        The two columns, without the texts that have no tab or several, or nothing but white space on one side.
    """
    pairs = texts.filter(texts.str.count_matches("\t", literal=True) == 1).str.split_exact("\t", 1)
    sides = pairs.struct.rename_fields(columns).struct.unnest().select(clean(pl.col(columns)))
    return sides.filter(pl.all_horizontal(pl.col(columns) != ""))


def one_line(text: pl.Expr) -> pl.Expr:
    """Bring a text of the task into one line without a tab, for a generator to learn from.

    Each run of tabs and line ends becomes one space, and white space at the ends is dropped. All else stays.
    """
    return text.str.replace_all(_LINE_ENDS, " ").str.replace_all(f"^{_WHITE}+|{_WHITE}+$", "")
