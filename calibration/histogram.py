"""How often which values flow through a tensor: counted batch by batch, values are not kept."""

from __future__ import annotations

import math

import numpy as np

from kobart_runtime.errors import BuildError

NUM_BINS = 1024  # of each sign; more than half of them up to the peak
BLOCK_LEN = 1 << 16  # values counted at a time, so that they stay in the processor's cache
SMALLEST_LIMIT = 2.0**-100  # what is less is 0


class Histogram:
    """Counts of values in bins of equal width from -limit to limit, which grows with them.

    The limit is a power of two, so that the same values in another order give the same counts.

    Attributes:
        counts: int64[2 * NUM_BINS].
        limit: The last bin's upper edge; 0 while there were zeros alone.
        peak: The largest magnitude so far.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * NUM_BINS, np.int64)
        self.limit = 0.0
        self.peak = 0.0

    @property
    def edges(self) -> np.ndarray:
        """Of all bins, float64[2 * NUM_BINS + 1]."""
        return np.linspace(-self.limit, self.limit, 2 * NUM_BINS + 1)

    @property
    def used(self) -> slice:
        """The bins up to the peak, on both sides of 0."""
        num_used = math.ceil(NUM_BINS * self.peak / self.limit) if self.limit else 0
        return slice(NUM_BINS - num_used, NUM_BINS + num_used)

    def add(self, values: np.ndarray) -> None:
        """Count a batch.

        Args:
            values: float32 of any shape.

        Raises:
            BuildError: One of them is no finite number.
        """
        peak = peak_of(values)
        if not math.isfinite(peak):
            raise BuildError(
                f"the float32 model computes {peak} on these documents: it is broken, or they are "
                "not what it was trained for"
            )
        self.peak = max(self.peak, peak)
        self._widen(peak)
        if self.limit:
            self._count(values.reshape(-1), np.float32(NUM_BINS / self.limit))
        else:
            self.counts[NUM_BINS] += values.size

    def _widen(self, peak: float) -> None:
        """Join neighbouring bins until the peak is within the limit."""
        if not self.limit and peak >= SMALLEST_LIMIT:
            self.limit = 2.0 ** math.ceil(math.log2(peak))
        while self.limit and peak > self.limit:
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(joined, NUM_BINS // 2)
            self.limit *= 2

    def _count(self, values: np.ndarray, bins_per_unit: np.float32) -> None:
        for start in range(0, len(values), BLOCK_LEN):
            # np.histogram takes eight times as long: it knows nothing of the range beforehand.
            block = values[start : start + BLOCK_LEN]
            bins = (block * bins_per_unit + np.float32(NUM_BINS)).astype(np.int64)
            np.minimum(bins, 2 * NUM_BINS - 1, out=bins)  # the limit itself lies in the last bin
            self.counts += np.bincount(bins, minlength=2 * NUM_BINS)


def peak_of(values: np.ndarray) -> float:
    """The largest magnitude, NaN if one is no number."""
    return float(np.maximum(-values.min(), values.max()))
