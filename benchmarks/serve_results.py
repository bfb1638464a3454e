"""What was measured of a served build, level by level."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from client.perf.options import Concurrency, RequestRate
from client.perf.records import LoadFigures, RequestRecord, figures
from client.perf.statistics import Spread, outliers
from client.perf.usage import Usage


@dataclass(frozen=True, order=True)
class Level:
    """One level of load."""

    is_rate: bool
    value: float  # requests in flight, or requests a second

    @classmethod
    def of(cls, load: Concurrency | RequestRate) -> Level:
        """The level of a load without an end."""
        return cls(isinstance(load, RequestRate), float(load.start))

    def __str__(self) -> str:
        return f"{self.value:.1f} requests/s" if self.is_rate else f"{self.value:g} in flight"


@dataclass
class Measured:
    """One level, all repeats."""

    repeats: list[LoadFigures] = field(default_factory=list)
    records: list[RequestRecord] = field(default_factory=list)  # of all repeats
    usages: list[Usage] = field(default_factory=list)

    def spread(self, value: Callable[[LoadFigures], float | None]) -> Spread | None:
        """One figure over the repeats; None where it does not apply."""
        values = [found for each in self.repeats if (found := value(each)) is not None]
        return Spread.of(values) if values else None

    def usage(self, value: Callable[[Usage], float | None]) -> Spread | None:
        """The same of what the server's processes used."""
        values = [found for each in self.usages if (found := value(each)) is not None]
        return Spread.of(values) if values else None

    @property
    def num_outliers(self) -> int:
        """Requests that took far longer, or shorter, than the others of this level."""
        return len(outliers([record.latency_ms for record in self.records if record.is_answered]))


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One step of the search."""

    rate: float
    p95_ms: float
    requests_per_s: float
    num_failed: int
    is_met: bool

    @classmethod
    def of(cls, rate: float, found: LoadFigures, target_ms: float) -> Probe:
        """Judge a rate: all were answered, and 95 % of them in time."""
        is_met = found.num_failed == 0 and found.latency_ms["p95"] <= target_ms
        return cls(
            rate=rate,
            p95_ms=found.latency_ms["p95"],
            requests_per_s=found.requests_per_s,
            num_failed=found.num_failed,
            is_met=is_met,
        )


@dataclass
class ServeResults:
    """Everything of one run."""

    target_ms: float
    load_per_s: float
    counts_replicas: bool = True  # see `ServePlan`
    levels: dict[Level, Measured] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)

    def add(self, level: Level, records: Sequence[RequestRecord], usage: Usage | None) -> None:
        """Keep one measurement."""
        measured = self.levels.setdefault(level, Measured())
        measured.repeats.append(figures(records, is_rate=level.is_rate, target_ms=self.target_ms))
        measured.records.extend(records)
        if usage is not None:
            measured.usages.append(usage)

    @property
    def greatest_throughput(self) -> float:
        """Requests a second of the fullest level in flight, the median of its repeats."""
        return max(
            measured.spread(lambda found: found.requests_per_s).median  # type: ignore[union-attr]
            for measured in self.levels.values()
        )

    @property
    def highest_rate(self) -> float | None:
        """The highest rate that met the target; None: none did, or none was tried."""
        return max((probe.rate for probe in self.probes if probe.is_met), default=None)

    @property
    def num_replicas(self) -> int | None:
        """Servers that the load needs, each at its highest rate."""
        rate = self.highest_rate
        return None if rate is None else math.ceil(self.load_per_s / rate)
