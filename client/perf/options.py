"""perf_analyzer's options as values that are checked before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kobart_runtime.errors import ConfigError

DISTRIBUTIONS = ("constant", "poisson")
SHARED_MEMORY = ("none", "system", "cuda")


class Load(Protocol):
    """How requests are sent."""

    def argv(self) -> Iterator[str]:
        """Its part of the command line."""


class Window(Protocol):
    """How long a load is measured."""

    def argv(self) -> Iterator[str]:
        """Its part of the command line."""


@dataclass(frozen=True)
class Concurrency:
    """A number of requests in flight: each answer is followed by the next request."""

    start: int
    end: int | None = None  # None: `start` alone
    step: int = 1

    def __post_init__(self) -> None:
        _require_range("concurrency", self.start, self.end, self.step, least=1)

    def argv(self) -> Iterator[str]:
        """See `Load`."""
        yield from ("--concurrency-range", _range(self.start, self.end, self.step))


@dataclass(frozen=True)
class RequestRate:
    """Requests a second, whether the server keeps up or not."""

    start: float
    end: float | None = None  # None: `start` alone
    step: float = 1.0
    distribution: str = "poisson"  # of arrivals; "constant" is kinder than the world

    def __post_init__(self) -> None:
        _require_range("request rate", self.start, self.end, self.step, least=1e-3)
        if self.distribution not in DISTRIBUTIONS:
            raise ConfigError(
                f"distribution must be one of {', '.join(DISTRIBUTIONS)}, got {self.distribution!r}"
            )

    def argv(self) -> Iterator[str]:
        """See `Load`."""
        # Without an end it would be 1.0, below which a rate alone becomes a range.
        end = self.start if self.end is None else self.end
        yield from ("--request-rate-range", _range(self.start, end, self.step))
        yield from ("--request-distribution", self.distribution)


@dataclass(frozen=True)
class Intervals:
    """The pauses between requests, from a file: microseconds, one a line, repeated."""

    path: Path

    def argv(self) -> Iterator[str]:
        """See `Load`."""
        yield from ("--request-intervals", str(self.path))


@dataclass(frozen=True)
class RequestCount:
    """One window of that many requests; the right one for summaries, whose lengths differ."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"the request count must be at least 1, got {self.count}")

    def argv(self) -> Iterator[str]:
        """See `Window`."""
        yield from ("--request-count", str(self.count))


@dataclass(frozen=True, kw_only=True)
class StableWindows:
    """Windows until three in a row agree."""

    count: int | None = None  # requests of each window at least; None: `interval_ms` counts
    interval_ms: int = 5000
    stability_percent: float = 10.0  # how far the three may lie apart
    max_trials: int = 10

    def argv(self) -> Iterator[str]:
        """See `Window`."""
        if self.count is None:
            yield from ("--measurement-mode", "time_windows")
            yield from ("--measurement-interval", str(self.interval_ms))
        else:
            yield from ("--measurement-mode", "count_windows")
            yield from ("--measurement-request-count", str(self.count))
        yield from ("--stability-percentage", f"{self.stability_percent:g}")
        yield from ("--max-trials", str(self.max_trials))


@dataclass(frozen=True, kw_only=True)
class PerfOptions:
    """One run of perf_analyzer over gRPC.

    This version of it has no warm-up: ask for more requests than are counted, and leave the
    first ones out of the profile (`client.perf.profile.read_profile`).
    """

    model: str
    url: str  # host:port of Triton's gRPC service
    load: Load
    window: Window
    input_data: Path  # without it, optional inputs would be filled with noise
    csv: Path
    profile: Path | None = None
    streaming: bool = False  # needed for `kobart`, which is decoupled
    batch_size: int | None = None
    percentile: int | None = None  # judges stability by it; None: by the average
    shared_memory: str = "none"
    output_shared_memory_bytes: int = 1 << 20  # of each output
    headers: Mapping[str, str] = field(default_factory=dict)  # such as the key of shared memory
    verbose_csv: bool = False  # the average latency too
    metrics_url: str | None = None  # of Triton's Prometheus endpoint; None: not collected
    metrics_interval_ms: int = 1000

    def __post_init__(self) -> None:
        if self.shared_memory not in SHARED_MEMORY:
            raise ConfigError(
                f"shared_memory must be one of {', '.join(SHARED_MEMORY)}, "
                f"got {self.shared_memory!r}"
            )
        if self.percentile is not None and not 1 <= self.percentile <= 99:
            raise ConfigError(f"percentile must be 1..99, got {self.percentile}")
        if isinstance(self.window, RequestCount) and getattr(self.load, "end", None) is not None:
            raise ConfigError("a request count measures one level of load: give no end of a range")
        if self.streaming and self.shared_memory != "none":
            raise ConfigError("a streamed answer cannot go through shared memory")

    def argv(self) -> list[str]:
        """The command line, without the program."""
        return [
            *("-m", self.model, "-u", self.url, "-i", "grpc", "-f", str(self.csv)),
            *("--input-data", str(self.input_data)),
            *self.load.argv(),
            *self.window.argv(),
            *self._optional(),
        ]

    def _optional(self) -> Iterator[str]:
        if self.streaming:
            yield "--streaming"
        if self.batch_size is not None:
            yield from ("-b", str(self.batch_size))
        if self.percentile is not None:
            yield from ("--percentile", str(self.percentile))
        if self.profile is not None:
            yield from ("--profile-export-file", str(self.profile))
        if self.shared_memory != "none":
            yield from ("--shared-memory", self.shared_memory)
            yield from ("--output-shared-memory-size", str(self.output_shared_memory_bytes))
        for name, value in self.headers.items():
            yield from ("-H", f"{name}:{value}")
        if self.verbose_csv or self.metrics_url is not None:
            yield "--verbose-csv"
        if self.metrics_url is not None:
            yield from ("--collect-metrics", "--metrics-url", self.metrics_url)
            yield from ("--metrics-interval", str(self.metrics_interval_ms))


def _range(start: float, end: float | None, step: float) -> str:
    return f"{start:g}" if end is None else f"{start:g}:{end:g}:{step:g}"


def _require_range(name: str, start: float, end: float | None, step: float, least: float) -> None:
    if start < least:
        raise ConfigError(f"the {name} must be at least {least:g}, got {start:g}")
    if end is not None and (end < start or step <= 0):
        raise ConfigError(
            f"a range of {name} must rise by a step above 0, got {start:g}:{end:g}:{step:g}"
        )
