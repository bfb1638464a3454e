"""Files in perf_analyzer's own form, small enough to check by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from client.perf.profile import read_csv, read_profile
from client.perf.records import figures
from client.perf_analyzer import PerfAnalyzerError

CSV = """Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,\
Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,p50 latency,\
p90 latency,p95 latency,p99 latency,Avg latency,Avg GPU Utilization,Max GPU Memory Usage
4,20.5,0,10,7,1,2,3,0,100,200,300,400,150,GPU-1:0.25;GPU-2:0.5;,GPU-1:1000000;GPU-2:2000000;
2,10.5,0,10,7,1,2,3,0,100,200,300,400,150,,
"""
SECOND = 1_000_000_000


def request(start: float, *responses: tuple[float, dict[str, Any]]) -> dict[str, Any]:
    return {
        "timestamp": int(start * SECOND),
        "response_timestamps": [int(time * SECOND) for time, _ in responses],
        "response_outputs": [outputs for _, outputs in responses],
    }


def tokens(count: int, reason: str = "") -> dict[str, Any]:
    return {"num_output_tokens": count, "finish_reason": reason, "text_output": "가"}


def write(path: Path, *requests: dict[str, Any]) -> Path:
    experiment = {
        "experiment": {"mode": "concurrency", "value": 2},
        "requests": requests,
        "window_boundaries": [],
    }
    path.write_text(json.dumps({"experiments": [experiment], "version": "2.51.0"}))
    return path


def test_csv_rows_are_sorted_by_load(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text(CSV)
    low, high = read_csv(path)
    assert (low.level, high.level) == (2, 4)
    assert (high.p99_us, high.server_compute_us, high.avg_us) == (400, 6, 150)
    assert (high.gpu_utilization_percent, high.gpu_memory_mb) == (50, 2)
    assert low.gpu_utilization_percent is None


def test_request_latency_is_that_of_the_last_response_with_tokens(tmp_path: Path) -> None:
    """The first response came after 1 s, the last tokens after 3 s, an empty response after 9 s."""
    path = write(
        tmp_path / "profile.json", request(10, (11, tokens(2)), (13, tokens(6, "stop")), (19, {}))
    )
    (experiment,) = read_profile(path)
    (record,) = experiment.records
    assert (experiment.mode, experiment.level) == ("concurrency", 2)
    assert record.first_chunk_ms == pytest.approx(1000)
    assert record.latency_ms == pytest.approx(3000)
    assert record.inter_token_ms == pytest.approx(500)


def test_an_answer_without_its_end_is_a_failure(tmp_path: Path) -> None:
    path = write(
        tmp_path / "profile.json",
        request(0, (1, tokens(3, "stop"))),
        request(0, (1, tokens(3))),
        request(0),
    )
    (experiment,) = read_profile(path)
    found = figures(experiment.records)
    assert (found.num_requests, found.num_failed) == (1, 2)


def test_warm_up_requests_are_the_first_that_were_sent(tmp_path: Path) -> None:
    path = write(
        tmp_path / "profile.json",
        *(request(start, (start + 1, tokens(1, "stop"))) for start in (5, 3, 4)),
    )
    (experiment,) = read_profile(path, num_warmup=2)
    assert [record.start_s for record in experiment.records] == [5]


@pytest.mark.parametrize("content", ["", "{}", '{"experiments": [{}]}', "Concurrency\n1\n"])
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(PerfAnalyzerError, match="is not perf_analyzer's profile"):
        read_profile(path)
    if content:
        with pytest.raises(PerfAnalyzerError, match="is not perf_analyzer's CSV"):
            assert read_csv(path)
    with pytest.raises(PerfAnalyzerError):
        read_profile(tmp_path / "missing")
