"""perf_analyzer's two reports as typed values.

For decoupled models its CSV gives latencies of the first response; what a request took is only in
the profile export, whose last response with tokens ends it.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.perf.records import Chunk, RequestRecord
from client.perf_analyzer import PerfAnalyzerError
from kobart_runtime import bindings

_NS = 1e-9


@dataclass(frozen=True, kw_only=True)
class CsvRow:
    """One level of load in the CSV; microseconds."""

    level: float  # concurrency, or requests a second
    inferences_per_s: float
    p50_us: float  # of the first response where the model is decoupled
    p90_us: float
    p95_us: float
    p99_us: float
    avg_us: float | None  # in verbose CSVs alone
    server_queue_us: float
    server_compute_us: float  # input, inference and output
    gpu_utilization_percent: float | None  # of the busiest GPU; in verbose CSVs alone
    gpu_memory_mb: float | None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One level of load in the profile export."""

    mode: str  # "concurrency" or "request_rate"
    level: float
    records: tuple[RequestRecord, ...]  # by the time they were sent


def read_csv(path: Path) -> list[CsvRow]:
    """The levels in the order of the load; perf_analyzer sorts them by throughput.

    Raises:
        PerfAnalyzerError: The file is missing or of another form.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [_csv_row(row) for row in csv.DictReader(file)]
        if not rows:
            raise ValueError("it has no rows")
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise PerfAnalyzerError(f"{path} is not perf_analyzer's CSV ({error!r})") from error
    return sorted(rows, key=lambda row: row.level)


def read_profile(path: Path, *, num_warmup: int = 0) -> list[Experiment]:
    """The levels, each without its first requests.

    Args:
        path: What `--profile-export-file` named.
        num_warmup: Requests of each level that do not count.

    Raises:
        PerfAnalyzerError: The file is missing or of another form.
    """
    try:
        profile = json.loads(path.read_text(encoding="utf-8"))
        return [_experiment(entry, num_warmup) for entry in profile["experiments"]]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise PerfAnalyzerError(f"{path} is not perf_analyzer's profile ({error!r})") from error


def _csv_row(row: dict[str, str]) -> CsvRow:
    level = row["Concurrency"] if "Concurrency" in row else row["Request Rate"]
    compute = ("Server Compute Input", "Server Compute Infer", "Server Compute Output")
    memory = _per_gpu(row.get("Max GPU Memory Usage"))
    return CsvRow(
        level=float(level),
        inferences_per_s=float(row["Inferences/Second"]),
        p50_us=float(row["p50 latency"]),
        p90_us=float(row["p90 latency"]),
        p95_us=float(row["p95 latency"]),
        p99_us=float(row["p99 latency"]),
        avg_us=float(row["Avg latency"]) if row.get("Avg latency") else None,
        server_queue_us=float(row["Server Queue"]),
        server_compute_us=sum(float(row[name]) for name in compute),
        gpu_utilization_percent=_percent(_per_gpu(row.get("Avg GPU Utilization"))),
        gpu_memory_mb=None if memory is None else memory / 1e6,
    )


def _per_gpu(cell: str | None) -> float | None:
    """The largest of `uuid:value;uuid:value;`; None where no GPU is listed."""
    values = [float(part.rpartition(":")[2]) for part in (cell or "").split(";") if part]
    return max(values, default=None)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _experiment(entry: dict[str, Any], num_warmup: int) -> Experiment:
    records = sorted((_record(r) for r in entry["requests"]), key=lambda r: r.start_s)
    return Experiment(
        mode=entry["experiment"]["mode"],
        level=float(entry["experiment"]["value"]),
        records=tuple(records[num_warmup:]),
    )


def _record(request: dict[str, Any]) -> RequestRecord:
    outputs = request["response_outputs"]
    chunks = [
        Chunk(time_s=_NS * time, num_tokens=int(output[bindings.NUM_OUTPUT_TOKENS]))
        for time, output in zip(request["response_timestamps"], outputs, strict=True)
        # Triton's empty final response carries a flag and no tensors.
        if bindings.NUM_OUTPUT_TOKENS in output
    ]
    is_whole = bool(outputs) and any(output.get(bindings.FINISH_REASON) for output in outputs)
    return RequestRecord(
        start_s=_NS * request["timestamp"],
        chunks=tuple(chunks),
        error="" if is_whole else "no complete answer",
    )
