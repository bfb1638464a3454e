"""Activations to the largest magnitude that int8 is to represent, per tensor.

Both methods stream: of a batch they keep its histogram, or its peak.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from onnxruntime.quantization.calibrate import HistogramCollector

from calibration.histogram import NUM_BINS, Histogram, peak_of
from kobart_runtime.errors import ConfigError

Batches = Iterable[Mapping[str, np.ndarray]]
Ranges = dict[str, float]

LARGEST_INT8 = 127  # symmetric: -127..127


def entropy_ranges(batches: Batches) -> Ranges:
    """Clip where the quantised distribution diverges least from the real one (Kullback-Leibler).

    ONNX Runtime's calibrator does the search (S. Migacz, "8-bit inference with TensorRT", GTC
    2017) on histograms that were counted as the batches came. The divergence knows no distances:
    behind GELU, where nearly all values lie close to 0, it would cut off the few large ones that
    carry the signal. So a clip stands only where it makes the expected squared error smaller.
    """
    histograms: dict[str, Histogram] = defaultdict(Histogram)
    for batch in batches:
        for name, values in batch.items():
            histograms[name].add(values)
    clips = _entropy_clips({name: each for name, each in histograms.items() if each.limit})
    return {
        name: _better(histogram, clips.get(name, 0.0)) for name, histogram in histograms.items()
    }


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


def _entropy_clips(histograms: Mapping[str, Histogram]) -> Ranges:
    """Where ONNX Runtime's entropy calibrator would clip."""
    collector = HistogramCollector(
        method="entropy",
        symmetric=True,
        num_bins=2 * NUM_BINS,
        num_quantized_bins=2 * LARGEST_INT8 + 1,
        percentile=None,
        scenario="same",
    )
    for name, each in histograms.items():
        edges = each.edges[each.used.start : each.used.stop + 1]
        entry = (each.counts[each.used], edges, edges[0], edges[-1], edges[-1])
        collector.get_histogram_dict()[name] = entry
    if not histograms:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        found = collector.compute_collection_result()
    return {name: float(max(-found[name][0], found[name][1])) for name in histograms}


def _better(histogram: Histogram, clip: float) -> float:
    """The clip, or the peak where that costs less."""
    candidates = [histogram.peak, min(clip, histogram.peak)]
    errors = [_squared_error(histogram, candidate) for candidate in candidates]
    return candidates[int(np.argmin(errors))]


def _squared_error(histogram: Histogram, limit: float) -> float:
    """Expected squared error of int8 up to `limit`: uniform rounding noise, and what is cut off."""
    edges = histogram.edges
    cut_off = np.maximum(np.abs(edges[:-1] + edges[1:]) / 2 - limit, 0.0)
    rounding = (limit / LARGEST_INT8) ** 2 / 12
    return float((histogram.counts * np.where(cut_off > 0, cut_off**2, rounding)).sum())
