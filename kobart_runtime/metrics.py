"""Counters and gauges of the runtime, kept in plain memory; `model.py` shows them to Triton."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricSpec:
    """One metric as Prometheus knows it."""

    name: str
    kind: str  # "counter" or "gauge"
    description: str


METRICS = (
    MetricSpec("kobart_requests_received", "counter", "Requests that reached the model"),
    MetricSpec("kobart_requests_finished", "counter", "Requests answered with a summary"),
    MetricSpec("kobart_requests_cancelled", "counter", "Requests cancelled or out of time"),
    MetricSpec("kobart_requests_rejected", "counter", "Requests refused: invalid or queue full"),
    MetricSpec("kobart_requests_failed", "counter", "Requests failed by an internal error"),
    MetricSpec("kobart_requests_waiting", "gauge", "Requests without a slot"),
    MetricSpec("kobart_requests_active", "gauge", "Requests being decoded"),
    MetricSpec("kobart_slots", "gauge", "Requests that can be decoded together"),
    MetricSpec("kobart_cache_bytes", "gauge", "K/V that admitted requests can come to"),
    MetricSpec("kobart_cache_limit_bytes", "gauge", "K/V that admitted requests may come to"),
    MetricSpec("kobart_requests_retried", "counter", "Requests decoded again after a failed batch"),
    MetricSpec("kobart_input_tokens", "counter", "Source tokens after truncation"),
    MetricSpec("kobart_output_tokens", "counter", "Tokens of finished summaries"),
    MetricSpec("kobart_decode_steps", "counter", "Decode steps, one per batch of a beam width"),
    MetricSpec("kobart_decode_step_requests", "counter", "Requests summed over decode steps"),
    MetricSpec("kobart_decode_step_rows", "counter", "Beams summed over decode steps"),
    MetricSpec("kobart_decode_batch_size", "gauge", "Requests of the latest decode step"),
    MetricSpec("kobart_first_token_seconds", "counter", "Arrival to first token, summed"),
    MetricSpec("kobart_first_tokens", "counter", "Requests that got a first token"),
    MetricSpec("kobart_tokenize_seconds", "counter", "Time spent tokenizing"),
    MetricSpec("kobart_encode_seconds", "counter", "Time spent in the encoder"),
    MetricSpec(
        "kobart_decode_seconds", "counter", "Time spent in decode steps, selection included"
    ),
    MetricSpec("kobart_detokenize_seconds", "counter", "Time spent detokenizing"),
)


class Metrics:
    """Values of METRICS by name without the `kobart_` prefix; any thread may change them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values = {spec.name: 0.0 for spec in METRICS}

    def add(self, **amounts: float) -> None:
        """Increase counters: `add(input_tokens=12)`."""
        with self._lock:
            for name, amount in amounts.items():
                self._values[f"kobart_{name}"] += amount

    def set(self, **values: float) -> None:
        """Set gauges: `set(requests_waiting=3)`."""
        with self._lock:
            for name, value in values.items():
                if f"kobart_{name}" not in self._values:
                    raise KeyError(name)
                self._values[f"kobart_{name}"] = value

    def snapshot(self) -> dict[str, float]:
        """All values at one moment, by full name."""
        with self._lock:
            return dict(self._values)
