"""Ranges: streaming, clipping of outliers, and what may not be clipped."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.ranges import entropy_ranges, method_named, minmax_ranges
from kobart_runtime.errors import ConfigError


@pytest.fixture
def batches() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    normal = random.standard_normal((4, 5000)).astype(np.float32)
    laplace = random.laplace(size=(4, 50_000)).astype(np.float32)
    outlier = normal.copy()
    outlier[2, 0] = 60.0
    spike = np.where(random.random((4, 5000)) < 0.99, normal * 0.02, normal * 8).astype(np.float32)
    return [
        {
            "normal": normal[index],
            "laplace": laplace[index],
            "outlier": outlier[index],
            "spike": spike[index],
        }
        for index in range(4)
    ]


def squared_error(values: np.ndarray, limit: float) -> float:
    """Of symmetric int8 up to `limit`, computed the slow way."""
    scale = limit / 127
    return float(((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2).mean())


def test_minmax_is_the_largest_magnitude(batches: list[dict[str, np.ndarray]]) -> None:
    ranges = minmax_ranges(iter(batches))
    for name, limit in ranges.items():
        assert limit == max(float(np.abs(batch[name]).max()) for batch in batches)


def test_entropy_costs_no_more_squared_error_than_no_clipping(
    batches: list[dict[str, np.ndarray]],
) -> None:
    entropy, minmax = entropy_ranges(iter(batches)), minmax_ranges(iter(batches))
    assert entropy["laplace"] < 0.9 * minmax["laplace"]
    assert entropy["spike"] > 0.7 * minmax["spike"]
    for name in entropy:
        values = np.concatenate([batch[name] for batch in batches])
        assert squared_error(values, entropy[name]) <= 1.02 * squared_error(values, minmax[name])


def test_what_is_zero_throughout_has_no_range() -> None:
    zeros = {"zeros": np.zeros(100, np.float32)}
    assert entropy_ranges(iter([zeros])) == minmax_ranges(iter([zeros])) == {"zeros": 0.0}


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be one of entropy, minmax, got 'percentile'"):
        method_named("percentile")
