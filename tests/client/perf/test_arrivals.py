from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from client.perf.arrivals import poisson_pauses_s, write_intervals


@pytest.mark.parametrize("count", [1, 7, 2000])
def test_the_mean_is_the_rate_and_the_draws_are_exponential(count: int, tmp_path: Path) -> None:
    pauses = poisson_pauses_s(4.0, count)
    assert sum(pauses) == pytest.approx(count / 4.0)
    assert pauses == poisson_pauses_s(4.0, count)
    if count > 1000:
        assert statistics.stdev(pauses) == pytest.approx(0.25, rel=0.1)
    lines = write_intervals(tmp_path / "pauses", pauses).read_text().split()
    assert sum(map(int, lines)) == pytest.approx(1e6 * count / 4.0, rel=1e-4)
