from __future__ import annotations

import pytest

from client.perf.records import Chunk, RequestRecord, figures


def record(start: float, end: float, num_tokens: int = 10, first: float = 0.1) -> RequestRecord:
    chunks = (
        Chunk(time_s=start + first, num_tokens=1),
        Chunk(time_s=end, num_tokens=num_tokens),
    )
    return RequestRecord(start_s=start, chunks=chunks)


def test_rates_leave_out_the_ends_of_the_load() -> None:
    """One request in flight, each a second long: one a second, whatever comes before and after."""
    records = [record(start, start + 1) for start in range(10)]
    found = figures(records)
    assert found.requests_per_s == pytest.approx(1)
    assert found.output_tokens_per_s == pytest.approx(10)
    assert found.latency_ms["p50"] == pytest.approx(1000)
    assert found.inter_token_ms["avg"] == pytest.approx(100)


def test_an_overloaded_rate_is_what_comes_out() -> None:
    """Ten requests a second are sent, two a second are answered."""
    records = [record(0.1 * number, 0.5 * number + 1) for number in range(10)]
    assert figures(records, is_rate=True).requests_per_s == pytest.approx(2)


def test_a_slow_first_answer_does_not_raise_the_rate() -> None:
    records = [record(0, 4.5), *(record(number, number + 0.5) for number in range(1, 6))]
    assert figures(records, is_rate=True).requests_per_s == pytest.approx(1)


def test_few_requests_are_counted_whole() -> None:
    found = figures([record(0, 2), record(0, 2)])
    assert found.requests_per_s == pytest.approx(1)


def test_goodput_counts_what_met_the_target() -> None:
    records = [record(start, start + (0.5 if start % 2 else 1.0)) for start in range(21)]
    found = figures(records, target_ms=600)
    assert found.goodput_per_s == pytest.approx(found.requests_per_s / 2, rel=0.15)


def test_failures_are_counted_apart() -> None:
    failed = RequestRecord(start_s=0, chunks=(), error="UNAVAILABLE: queue full")
    found = figures([record(0, 1), failed])
    assert (found.num_requests, found.num_failed) == (1, 1)
    with pytest.raises(ValueError, match="no request was answered"):
        figures([failed])


def test_one_chunk_has_no_time_between_tokens() -> None:
    whole = RequestRecord(start_s=0, chunks=(Chunk(time_s=1, num_tokens=8),))
    assert whole.inter_token_ms is None
    assert figures([whole]).inter_token_ms == {}
