"""How often which magnitudes flow through a tensor: counted batch by batch, values are not kept."""

from __future__ import annotations

import math

import numpy as np

from kobart_runtime.errors import BuildError

NUM_BINS = 1024  # at least half of them up to the peak
BLOCK_LEN = 1 << 16  # values counted at a time, so that they stay in the processor's cache
SMALLEST_LIMIT = 1e-30  # what is less is 0


class Histogram:
    """Counts of magnitudes in bins of equal width from 0 to a limit, which grows with the values.

    Attributes:
        counts: int64[NUM_BINS].
        limit: The last bin's upper edge; 0 while there were zeros alone.
        peak: The largest magnitude so far.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(NUM_BINS, np.int64)
        self.limit = 0.0
        self.peak = 0.0

    @property
    def used(self) -> np.ndarray:
        """The counts up to the last that is not 0, int64[bins]; at least one."""
        return self.counts[: max(1, int(np.flatnonzero(self.counts)[-1]) + 1)]

    @property
    def bin_width(self) -> float:
        """Upper less lower edge."""
        return self.limit / NUM_BINS

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
            self.counts[0] += values.size

    def _widen(self, peak: float) -> None:
        """Join neighbouring bins until the peak is within the limit."""
        if not self.limit and peak > SMALLEST_LIMIT:
            self.limit = peak
        while self.limit and peak > self.limit:
            joined = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([joined, np.zeros_like(joined)])
            self.limit *= 2

    def _count(self, values: np.ndarray, bins_per_unit: np.float32) -> None:
        for start in range(0, len(values), BLOCK_LEN):
            # np.histogram takes eight times as long: it knows nothing of the range beforehand.
            bins = (np.abs(values[start : start + BLOCK_LEN]) * bins_per_unit).astype(np.int64)
            np.minimum(bins, NUM_BINS - 1, out=bins)  # the limit itself lies in the last bin
            self.counts += np.bincount(bins, minlength=NUM_BINS)


def peak_of(values: np.ndarray) -> float:
    """The largest magnitude, NaN if one is no number."""
    return float(np.maximum(-values.min(), values.max()))
