"""Texts that occur more than once, in a table or in two: found by their hashes, so that none is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from kdcli.tables.forms import Numbers
from kdcli.tables.spans import Hashes


@dataclass(frozen=True)
class Keys:
    """What is kept of the rows of a table.

    Attributes:
        rows: Their numbers in the file, ascending, ``int64 [rows]``.
        exact: A hash of their texts.
        folded: A hash of their texts that does not depend on case and white space.
        labels: A number for each label, or the score; NaN where there is none. ``float64 [rows]``.
    """

    rows: Numbers
    exact: Hashes
    folded: Hashes
    labels: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[Keys]) -> Keys:
        """Put the rows of some parts one behind the other."""
        none = cls(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.float64))
        return cls(*(np.concatenate([getattr(part, one.name) for part in [none, *parts]]) for one in fields(cls)))


@dataclass(frozen=True)
class Repeats:
    """Rows of one table that share their texts with others.

    Attributes:
        texts: How many different texts they have.
        rows: How many rows have them; of repeated texts, how many of these repeat an earlier row.
        example: The numbers of the first two of the rows, None where there are none.
        shown: Their texts.
    """

    texts: int = 0
    rows: int = 0
    example: tuple[int, int] | None = None
    shown: str = ""


@dataclass(frozen=True)
class Common:
    """Rows of a second table whose texts are in a first one.

    Attributes:
        rows: How many there are.
        alike: How many there are if case and white space do not count.
        example: The number of a row of the first table and of one of the second, None where there are none.
        shown: The texts of the latter.
    """

    rows: int
    alike: int
    example: tuple[int, int] | None = None
    shown: str = ""


def repeats(keys: Keys) -> tuple[Repeats, Repeats]:
    """Find the rows whose texts another row has, and those of them whose texts have several labels."""
    order = np.argsort(keys.exact)
    same = np.diff(keys.exact[order]) == 0
    members = np.union1d(order[1:][same], order[:-1][same])
    if not len(members):
        return Repeats(), Repeats()
    _, groups, sizes = np.unique(keys.exact[members], return_inverse=True, return_counts=True)
    rows, labels = keys.rows[members], keys.labels[members]
    twice = rows[groups == groups[0]][:2]
    repeated = Repeats(len(sizes), len(members) - len(sizes), (int(twice[0]), int(twice[1])))

    lowest, highest = np.full((2, len(sizes)), np.nan)
    np.fmin.at(lowest, groups, labels)
    np.fmax.at(highest, groups, labels)
    several = lowest < highest
    if not several.any():
        return repeated, Repeats()
    labelled = several[groups] & ~np.isnan(labels)
    first = int(labelled.argmax())
    other = int((labelled & (groups == groups[first]) & (labels != labels[first])).argmax())
    return repeated, Repeats(int(several.sum()), int(sizes[several].sum()), (int(rows[first]), int(rows[other])))


def common(first: Keys, second: Keys) -> Common:
    """Find the rows of the second table whose texts the first one has."""
    exact, folded = _occurs(first.exact, second.exact), _occurs(first.folded, second.folded)
    if not folded.any():
        return Common(0, 0)
    place = int((exact if exact.any() else folded).argmax())
    there = first.exact == second.exact[place] if exact.any() else first.folded == second.folded[place]
    return Common(int(exact.sum()), int(folded.sum()), (int(first.rows[there.argmax()]), int(second.rows[place])))


def _occurs(hashes: Hashes, wanted: Hashes) -> NDArray[np.bool_]:
    """Tell which of the wanted hashes are among the others."""
    if not len(hashes):
        return np.zeros(len(wanted), bool)
    known = np.sort(hashes)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found: NDArray[np.bool_] = known[places] == wanted
    return found
