"""When requests arrive: pauses with exactly the asked mean, however few there are.

perf_analyzer's own Poisson schedule begins with the same draws each time, whose mean over the
first dozen requests is less than half of the rate that was asked for.
"""

from __future__ import annotations

import random
from pathlib import Path

SEED = 0


def poisson_pauses_s(requests_per_s: float, count: int, seed: int = SEED) -> list[float]:
    """Seconds between arrivals: exponential draws, scaled to the mean of `1 / requests_per_s`."""
    draws = random.Random(seed)
    pauses = [draws.expovariate(1.0) for _ in range(count)]
    scale = count / sum(pauses) / requests_per_s
    return [scale * pause for pause in pauses]


def write_intervals(path: Path, pauses_s: list[float]) -> Path:
    """Write what perf_analyzer's `--request-intervals` reads: microseconds, one a line."""
    path.write_text("".join(f"{max(1, round(1e6 * pause))}\n" for pause in pauses_s))
    return path
