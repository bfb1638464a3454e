from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.perf.statistics import NO_CLEAR_DIFFERENCE, Spread, outliers, percentile, speed_up


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentile_is_numpys(values: list[float], percent: float) -> None:
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), abs=1e-6)


def test_outliers_lie_far_from_the_others() -> None:
    assert outliers([10, 11, 9, 10, 12, 50]) == [50]
    assert outliers([10, 11, 9, 10, 12]) == []
    assert outliers([1, 100]) == []


def test_spread() -> None:
    spread = Spread.of([3.0, 1.0, 2.0])
    assert (spread.low, spread.median, spread.high, spread.repeats) == (1, 2, 3, 3)
    assert spread.relative == 1


@pytest.mark.parametrize(
    ("candidate", "baseline", "text"),
    [
        ([20, 21, 22], [10, 10, 11], "2.10x (1.82-2.20)"),
        ([5, 5, 5], [10, 10, 10], "0.50x (0.50-0.50)"),
        ([10, 12], [11, 9], NO_CLEAR_DIFFERENCE),  # the spreads overlap
        ([20], [10], NO_CLEAR_DIFFERENCE),  # one repeat has no spread to judge by
        ([1, 2], [0, 1], NO_CLEAR_DIFFERENCE),
    ],
)
def test_a_speed_up_is_printed_only_if_it_is_clear(
    candidate: list[float], baseline: list[float], text: str
) -> None:
    assert speed_up(Spread.of(candidate), Spread.of(baseline)) == text
