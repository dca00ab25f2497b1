from __future__ import annotations

import pytest

from kdcli.evaluate.results import gap_closed


def test_gap_closed_of_paper_a() -> None:
    # Tang et al. 2019, table 1: SST-2 94.9 (teacher), 86.7 (labels only), 90.7 (distilled): 49 %.
    assert gap_closed([94.9], [86.7], [90.7]) == pytest.approx(4.0 / 8.2)


def test_gap_closed_takes_means_over_seeds() -> None:
    assert gap_closed([90.0], [80.0, 82.0], [85.0, 87.0]) == pytest.approx((86 - 81) / (90 - 81))


def test_no_gap_no_share() -> None:
    assert gap_closed([80.0], [80.0], [85.0]) is None
    assert gap_closed([79.0], [80.0], [85.0]) is None
