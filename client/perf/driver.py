"""perf_analyzer as a driver of the front model: one level of load in, its requests out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from client.perf.arrivals import poisson_pauses_s, write_intervals
from client.perf.options import (
    Concurrency,
    Intervals,
    Load,
    PerfOptions,
    RequestCount,
    RequestRate,
)
from client.perf.profile import read_profile
from client.perf.records import RequestRecord
from client.perf_analyzer import PerfAnalyzer, PerfAnalyzerError

_LIMIT_S = 600.0


class Driver(Protocol):
    """Whatever can put a load on a served front model."""

    def measure(
        self, load: Concurrency | RequestRate, *, num_requests: int, num_warmup: int
    ) -> list[RequestRecord]:
        """Put one level of load on the server.

        Args:
            load: Without an end: one level.
            num_requests: How many count.
            num_warmup: How many go before them, under the same load.

        Raises:
            KobartError: The load could not be held to its end.
        """


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class PerfAnalyzerDriver:
    """See `Driver`."""

    analyzer: PerfAnalyzer
    url: str
    model: str
    input_data: Path
    folder: Path  # for what perf_analyzer writes
    check: Callable[[], None] = field(default=_nothing)  # raises if the server has died

    def measure(
        self, load: Concurrency | RequestRate, *, num_requests: int, num_warmup: int
    ) -> list[RequestRecord]:
        """See `Driver`."""
        profile = self.folder / "profile.json"
        profile.unlink(missing_ok=True)
        count = num_requests + num_warmup
        options = self._options(self._exact(load, count), count, profile)
        try:
            self.analyzer.run(options, _LIMIT_S, self.check)
        finally:
            self.check()  # a dead server explains better than whatever perf_analyzer says of it
        (experiment,) = read_profile(profile, num_warmup=num_warmup)
        if not any(record.is_answered for record in experiment.records):
            raise PerfAnalyzerError(
                f"model {self.model} answered none of {num_requests} requests: see the server's log"
            )
        return list(experiment.records)

    def _exact(self, load: Concurrency | RequestRate, count: int) -> Load:
        """The load with arrivals of our own where perf_analyzer's would miss the rate."""
        if isinstance(load, Concurrency) or load.distribution == "constant":
            return load
        pauses = poisson_pauses_s(load.start, count)
        return Intervals(write_intervals(self.folder / "intervals", pauses))

    def _options(self, load: Load, count: int, profile: Path) -> list[str]:
        return PerfOptions(
            model=self.model,
            url=self.url,
            load=load,
            window=RequestCount(count),
            input_data=self.input_data,
            csv=self.folder / "report.csv",
            profile=profile,
            streaming=True,
        ).argv()
