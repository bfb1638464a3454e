"""What became of the requests of one load, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from client.perf.statistics import percentile

PERCENTS = (50, 90, 95, 99)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One response that carried tokens."""

    time_s: float  # on the clock of `RequestRecord.start_s`
    num_tokens: int  # generated so far


@dataclass(frozen=True, kw_only=True)
class RequestRecord:
    """One request and its responses."""

    start_s: float
    chunks: tuple[Chunk, ...]  # empty: it failed
    error: str = ""

    @property
    def is_answered(self) -> bool:
        """Whether a whole summary came."""
        return bool(self.chunks) and not self.error

    @property
    def end_s(self) -> float:
        """When the last response came."""
        return self.chunks[-1].time_s

    @property
    def latency_ms(self) -> float:
        """From sending to the last response."""
        return 1000 * (self.end_s - self.start_s)

    @property
    def first_chunk_ms(self) -> float:
        """From sending to the first response: the time to the first token where it streams."""
        return 1000 * (self.chunks[0].time_s - self.start_s)

    @property
    def num_tokens(self) -> int:
        """Generated tokens."""
        return self.chunks[-1].num_tokens

    @property
    def inter_token_ms(self) -> float | None:
        """Mean time between tokens after the first chunk; None if it came in one."""
        later = self.num_tokens - self.chunks[0].num_tokens
        return (self.latency_ms - self.first_chunk_ms) / later if later > 0 else None


@dataclass(frozen=True, kw_only=True)
class LoadFigures:
    """The figures of one load."""

    num_requests: int  # answered
    num_failed: int
    requests_per_s: float
    output_tokens_per_s: float
    goodput_per_s: float  # requests a second within the latency target
    latency_ms: dict[str, float]  # "avg", "p50", "p90", "p95", "p99"
    first_token_ms: dict[str, float]
    inter_token_ms: dict[str, float]  # empty where nothing was streamed


def figures(
    records: Sequence[RequestRecord], *, is_rate: bool = False, target_ms: float | None = None
) -> LoadFigures:
    """Sum up one load, its warm-up left out.

    Args:
        records: In any order.
        is_rate: Requests were sent at a rate, not as others were answered.
        target_ms: What a request may take for goodput; None: all that were answered count.

    Raises:
        ValueError: Nothing was answered.
    """
    answered = [record for record in records if record.is_answered]
    if not answered:
        raise ValueError("no request was answered")
    rate = _answers_per_s(answered, is_rate)
    good = [r for r in answered if target_ms is None or r.latency_ms <= target_ms]
    num_tokens = sum(record.num_tokens for record in answered)
    inter_token = [r.inter_token_ms for r in answered if r.inter_token_ms is not None]
    return LoadFigures(
        num_requests=len(answered),
        num_failed=len(records) - len(answered),
        requests_per_s=rate,
        output_tokens_per_s=rate * num_tokens / len(answered),
        goodput_per_s=rate * len(good) / len(answered),
        latency_ms=summary([record.latency_ms for record in answered]),
        first_token_ms=summary([record.first_chunk_ms for record in answered]),
        inter_token_ms=summary(inter_token),
    )


def summary(values: Sequence[float]) -> dict[str, float]:
    """Average and percentiles; empty for no values."""
    if not values:
        return {}
    return {
        "avg": sum(values) / len(values),
        **{f"p{percent}": percentile(values, percent) for percent in PERCENTS},
    }


def _answers_per_s(answered: Sequence[RequestRecord], is_rate: bool) -> float:
    """Answers a second while the load was whole.

    With a number of requests in flight, every answer lets one request start, so the starts tell
    the rate of answers, without the end of the load, when fewer are in flight. At a given rate
    the starts tell what was asked for, and the ends whether the server kept up.
    """
    starts, ends = [r.start_s for r in answered], [r.end_s for r in answered]
    seconds = max(starts) - min(starts)
    if is_rate:
        seconds = max(seconds, max(ends) - min(ends))
    whole_s = max(ends) - min(starts)
    if seconds < whole_s / 4:  # hardly more requests than were in flight together
        return len(answered) / whole_s
    return (len(answered) - 1) / seconds
