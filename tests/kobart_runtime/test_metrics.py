"""Counters and gauges in memory."""

from __future__ import annotations

import threading

import pytest

from kobart_runtime.metrics import METRICS, Metrics


def test_names_are_unique_and_of_a_known_kind() -> None:
    names = [spec.name for spec in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("kobart_") for name in names)
    assert {spec.kind for spec in METRICS} == {"counter", "gauge"}
    assert all(spec.description for spec in METRICS)


def test_everything_starts_at_zero() -> None:
    assert Metrics().snapshot() == {spec.name: 0.0 for spec in METRICS}


def test_counters_add_and_gauges_are_set() -> None:
    metrics = Metrics()
    metrics.add(input_tokens=3, decode_seconds=0.5)
    metrics.add(input_tokens=4)
    metrics.set(requests_waiting=9)
    metrics.set(requests_waiting=2)
    values = metrics.snapshot()
    assert values["kobart_input_tokens"] == 7
    assert values["kobart_decode_seconds"] == 0.5
    assert values["kobart_requests_waiting"] == 2


def test_a_snapshot_does_not_change() -> None:
    metrics = Metrics()
    before = metrics.snapshot()
    metrics.add(input_tokens=3)
    assert before["kobart_input_tokens"] == 0


def test_unknown_names_are_errors() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.add(tokens=1)
    with pytest.raises(KeyError):
        metrics.set(tokens=1)
    assert metrics.snapshot() == Metrics().snapshot()


def test_threads_lose_nothing() -> None:
    metrics = Metrics()

    def add_many() -> None:
        for _ in range(2000):
            metrics.add(input_tokens=1, output_tokens=2)

    threads = [threading.Thread(target=add_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = metrics.snapshot()
    assert values["kobart_input_tokens"] == 16000
    assert values["kobart_output_tokens"] == 32000
