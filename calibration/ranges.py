"""Activations to the largest magnitude that int8 is to represent, per tensor.

Both methods stream: of a batch they keep its histogram, or its peak.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from calibration.histogram import Histogram, peak_of
from kobart_runtime.errors import ConfigError

Batches = Iterable[Mapping[str, np.ndarray]]
Ranges = dict[str, float]

LARGEST_INT8 = 127  # symmetric: -127..127
NUM_LEVELS = LARGEST_INT8 + 1  # magnitudes, 0 among them
LEAST_SHARE = 1e-9  # of a bin that is empty behind int8: its logarithm must be finite


def entropy_ranges(batches: Batches) -> Ranges:
    """Clip where the quantised distribution diverges least from the real one (Kullback-Leibler).

    The idea is S. Migacz's ("8-bit inference with TensorRT", GTC 2017). The divergence knows no
    distances: behind GELU, where nearly all values lie close to 0, it would cut off the few large
    ones that carry the signal. So a clip stands only where it makes the expected squared error
    smaller.
    """
    histograms: dict[str, Histogram] = defaultdict(Histogram)
    for batch in batches:
        for name, values in batch.items():
            histograms[name].add(values)
    return {name: _entropy_range(histogram) for name, histogram in histograms.items()}


def minmax_ranges(batches: Batches) -> Ranges:
    """The largest magnitude that was seen: nothing is clipped, outliers cost everyone else."""
    peaks: Ranges = {}
    for batch in batches:
        for name, values in batch.items():
            peaks[name] = max(peaks.get(name, 0.0), peak_of(values))
    return peaks


METHODS: dict[str, Callable[[Batches], Ranges]] = {
    "entropy": entropy_ranges,
    "minmax": minmax_ranges,
}


def method_named(name: str) -> Callable[[Batches], Ranges]:
    """One of METHODS.

    Raises:
        ConfigError: There is no such method.
    """
    if name not in METHODS:
        raise ConfigError(f"the method must be one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def _entropy_range(histogram: Histogram) -> float:
    clip = best_clip(histogram.used) * histogram.bin_width
    candidates = [histogram.peak, min(clip, histogram.peak)]
    errors = [_squared_error(histogram, candidate) for candidate in candidates]
    return candidates[int(np.argmin(errors))]


def best_clip(counts: np.ndarray) -> int:
    """How many bins to keep for the least divergence.

    Args:
        counts: int64[bins], of magnitudes.
    """
    kept = range(min(NUM_LEVELS, len(counts)), len(counts) + 1)
    return min(kept, key=lambda num_kept: _divergence(counts, num_kept))


def _divergence(counts: np.ndarray, num_kept: int) -> float:
    """From the counts, with what is cut off at the end, to what int8 can tell apart of them."""
    kept = counts[:num_kept].astype(np.float64)
    real = kept.copy()
    real[-1] += counts[num_kept:].sum()
    bins_per_level = max(1, num_kept // NUM_LEVELS)
    levels = np.minimum(np.arange(num_kept) // bins_per_level, NUM_LEVELS - 1)
    occupied = real > 0
    # Each level's counts are spread evenly over those of its bins that are not empty.
    shares = np.bincount(levels, kept) / np.maximum(np.bincount(levels, occupied), 1)
    restored = np.where(occupied, shares[levels], 0.0)
    p = real[occupied] / real.sum()
    q = restored[occupied] / restored.sum()
    return float((p * np.log(p / np.maximum(q, LEAST_SHARE))).sum())


def _squared_error(histogram: Histogram, limit: float) -> float:
    """Expected squared error of int8 up to `limit`: uniform rounding noise, and what is cut off."""
    counts = histogram.used
    centers = (np.arange(len(counts)) + 0.5) * histogram.bin_width
    cut_off = np.maximum(centers - limit, 0.0)
    rounding = (limit / LARGEST_INT8) ** 2 / 12
    return float((counts * np.where(cut_off > 0, cut_off**2, rounding)).sum())
