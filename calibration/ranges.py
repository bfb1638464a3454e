"""Activations -> the largest magnitude that int8 is to represent, per tensor.

Both methods stream: of a batch they keep its histogram, or its peak.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from onnxruntime.quantization.calibrate import HistogramCollector

from kobart_runtime.errors import ConfigError

Batches = Iterable[Mapping[str, np.ndarray]]
Ranges = dict[str, float]

LARGEST_INT8 = 127  # symmetric: -127..127
NUM_BINS = 1024  # least, over both signs; at most twice as many


def entropy_ranges(batches: Batches) -> Ranges:
    """Clip where the quantised distribution diverges least from the real one (Kullback-Leibler).

    ONNX Runtime's calibrator does the work (S. Migacz, "8-bit inference with TensorRT", GTC 2017);
    it adds each batch to its histograms as it comes. The divergence knows no distances: behind
    GELU, where nearly all values lie close to 0, it would cut off the few large ones that carry
    the signal. So a clip stands only where it makes the expected squared error smaller.
    """
    collector = HistogramCollector(
        method="entropy",
        symmetric=True,
        num_bins=NUM_BINS,
        num_quantized_bins=2 * LARGEST_INT8 + 1,
        percentile=None,
        scenario="same",
    )
    histograms = collector.get_histogram_dict()
    for batch in batches:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for every batch
            collector.collect(batch)
        histograms.update({name: _compact(*entry) for name, entry in histograms.items()})
    if not histograms:
        return {}
    with contextlib.redirect_stdout(io.StringIO()):
        clips = collector.compute_collection_result()
    ranges = {}
    for name, (counts, edges, low, high, _) in histograms.items():
        candidates = [_peak(low, high), _peak(*clips[name][:2])]
        errors = [_squared_error(counts, edges, candidate) for candidate in candidates]
        ranges[name] = candidates[int(np.argmin(errors))]
    return ranges


def minmax_ranges(batches: Batches) -> Ranges:
    """The largest magnitude that was seen: nothing is clipped, outliers cost everyone else."""
    peaks: Ranges = {}
    for batch in batches:
        for name, values in batch.items():
            peaks[name] = max(peaks.get(name, 0.0), _peak(values.min(), values.max()))
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


def _peak(low: float, high: float) -> float:
    return float(max(-low, high, 0.0))


def _compact(
    counts: np.ndarray, edges: np.ndarray, low: float, high: float, limit: float
) -> tuple[np.ndarray, np.ndarray, float, float, float]:
    """Join neighbouring bins while there are too many: later batches add bins, never wider ones."""
    while len(counts) >= 2 * NUM_BINS:
        if len(counts) % 4:  # pairs must not cross 0
            width = edges[-1] - edges[-2]
            counts = np.pad(counts, 1)
            edges = np.concatenate([edges[:1] - width, edges, edges[-1:] + width])
        counts, edges = counts.reshape(-1, 2).sum(axis=1), edges[::2]
        limit = edges[-1]
    return counts, edges, low, high, limit


def _squared_error(counts: np.ndarray, edges: np.ndarray, limit: float) -> float:
    """Expected squared error of int8 up to `limit`: uniform rounding noise, and what is cut off."""
    centers = (edges[:-1] + edges[1:]) / 2
    cut_off = np.maximum(np.abs(centers) - limit, 0.0)
    rounding = (limit / LARGEST_INT8) ** 2 / 12
    return float((counts * np.where(cut_off > 0, cut_off**2, rounding)).sum())
