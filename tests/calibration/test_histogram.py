"""Histograms: equal to numpy's, whatever the batches; ranges, against ONNX Runtime's own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector

from calibration.histogram import BLOCK_LEN, NUM_BINS, Histogram
from calibration.ranges import entropy_ranges
from kobart_runtime.errors import BuildError
from tests.calibration.memory import peak_bytes
from tests.calibration.test_ranges import squared_error


@pytest.fixture
def batches() -> list[np.ndarray]:
    """The largest values come late, so that the bins have to be joined."""
    random = np.random.default_rng(3)
    return [
        (random.standard_normal((3, BLOCK_LEN // 2)) * scale).astype(np.float32)
        for scale in (0.5, 3, 1, 20, 0)
    ]


def histogram_of(batches: list[np.ndarray]) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def test_counts_are_those_of_numpy(batches: list[np.ndarray]) -> None:
    histogram = histogram_of(batches)
    values = np.concatenate(batches).ravel()
    expected, edges = np.histogram(values, 2 * NUM_BINS, range=(-histogram.limit, histogram.limit))
    assert histogram.counts.sum() == values.size
    # float32 puts a few values that lie on an edge on its other side.
    assert np.abs(histogram.counts - expected).sum() < 1e-3 * values.size
    np.testing.assert_allclose(histogram.edges, edges)
    assert histogram.peak == np.abs(values).max() <= histogram.limit < 2 * np.abs(values).max()


def test_the_bins_up_to_the_peak_hold_everything(batches: list[np.ndarray]) -> None:
    histogram = histogram_of(batches)
    used = histogram.used
    assert histogram.counts[used].sum() == histogram.counts.sum()
    assert histogram.edges[used.stop - 1] <= histogram.peak <= histogram.edges[used.stop]


def test_another_order_gives_the_same_counts(batches: list[np.ndarray]) -> None:
    first, second = histogram_of(batches), histogram_of(batches[::-1])
    assert (first.limit, first.peak) == (second.limit, second.peak)
    assert np.abs(first.counts - second.counts).sum() < 1e-3 * first.counts.sum()


@pytest.mark.parametrize("outlier", [1.0, 6.0, 40.0])
def test_the_range_is_as_good_as_onnx_runtimes(
    outlier: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose own histograms have bins of other widths."""
    values = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)
    values[0] = max(outlier, np.abs(values).max())
    collector = HistogramCollector("entropy", True, 2 * NUM_BINS, 255, None, "same")
    collector.collect({"x": values})
    low, high, *_ = collector.compute_collection_result()["x"]
    theirs = squared_error(values, max(-low, high))
    ours = squared_error(values, entropy_ranges([{"x": values}])["x"])
    assert ours <= 1.05 * theirs


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_an_error(bad: float) -> None:
    with pytest.raises(BuildError, match=rf"computes {bad} on these documents"):
        histogram_of([np.array([1.0, bad], np.float32)])


def test_memory_does_not_grow_with_the_batches() -> None:
    def stream(count: int) -> Iterator[dict[str, np.ndarray]]:
        for index in range(count):
            yield {"x": np.random.default_rng(index).standard_normal(200_000).astype(np.float32)}

    def ranges(count: int) -> object:
        return entropy_ranges(stream(count))

    few, many = peak_bytes(ranges, 3), peak_bytes(ranges, 60)
    assert many < 1.1 * few
