"""What `kobart-bench serve` measures, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from client.perf.options import Concurrency, RequestRate

RATE_SHARES = (0.5, 0.8)  # of the greatest throughput that was seen


@dataclass(frozen=True, kw_only=True)
class ServePlan:
    """What is measured, and for how long."""

    concurrencies: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rate_shares: tuple[float, ...] = RATE_SHARES
    repeats: int = 3
    least_requests: int = 40  # of a level
    requests_per_slot: int = 8  # of a level, for each request in flight
    search_steps: int = 6
    # How long a rate is held, in targets: a queue that only grows must have the time to show.
    targets_per_rate: float = 6.0
    target_ms: float = 1000.0
    load_per_s: float = 100.0
    counts_replicas: bool = True  # whether so much is measured that replicas may be counted

    @classmethod
    def quick(cls, target_ms: float, load_per_s: float) -> ServePlan:
        """Enough to show that all works."""
        return cls(
            concurrencies=(1, 4),
            rate_shares=(0.5,),
            repeats=2,
            least_requests=8,
            requests_per_slot=4,
            search_steps=2,
            targets_per_rate=2.0,
            counts_replicas=False,
            target_ms=target_ms,
            load_per_s=load_per_s,
        )

    def num_requests(self, load: Concurrency | RequestRate) -> int:
        """How many requests of a level count."""
        if isinstance(load, Concurrency):
            return max(self.least_requests, self.requests_per_slot * load.start)
        held_s = self.targets_per_rate * self.target_ms / 1000
        return max(self.least_requests, math.ceil(held_s * load.start))

    @property
    def num_measurements(self) -> int:
        """For the progress bar."""
        num_levels = len(self.concurrencies) + len(self.rate_shares)
        return num_levels * self.repeats + self.search_steps
