"""Triton's own load generator against the front model and its engines."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from client.perf_analyzer import PerfAnalyzer, find_perf_analyzer
from server.admin_key import GRPC_KEY_HEADER
from server.supervisor import TritonServer
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE_S
from tests.triton.http_api import settled_metrics

pytestmark = pytest.mark.triton

PERF_INPUT = REPOSITORY / "assets" / "perf_input.json"
NUM_REQUESTS = 6
SOURCE_LEN = 48


@pytest.fixture(scope="module")
def perf_analyzer() -> PerfAnalyzer:
    return find_perf_analyzer()


def run(
    perf_analyzer: PerfAnalyzer, triton: TritonServer, model: str, report: Path, *options: str
) -> dict[str, str]:
    """One short measurement; its only line of the CSV."""
    perf_analyzer.run(
        [
            *("-m", model, "-u", triton.grpc_url, "-i", "grpc", "-f", str(report)),
            *("--concurrency-range", "2", "--request-count", str(NUM_REQUESTS)),
            *options,
        ],
        timeout_s=PATIENCE_S,
    )
    with report.open(encoding="utf-8") as lines:
        (line,) = csv.DictReader(lines)
    return line


def test_front_model_streaming(
    perf_analyzer: PerfAnalyzer, triton: TritonServer, tmp_path: Path
) -> None:
    before = settled_metrics(triton)
    profile = tmp_path / "profile.json"
    line = run(
        perf_analyzer,
        triton,
        "kobart",
        tmp_path / "report.csv",
        "--streaming",
        f"--input-data={PERF_INPUT}",
        f"--profile-export-file={profile}",
    )
    assert (line["Concurrency"], float(line["Inferences/Second"]) > 0) == ("2", True)
    requests = _requests(profile)
    assert len(requests) >= NUM_REQUESTS
    assert max(len(request["response_timestamps"]) for request in requests) > 1
    after = settled_metrics(triton)
    finished = after["requests_finished"] - before["requests_finished"]
    assert finished >= NUM_REQUESTS
    assert after["requests_received"] - before["requests_received"] == finished


def test_encoder_with_shared_memory(
    perf_analyzer: PerfAnalyzer, triton: TritonServer, tmp_path: Path
) -> None:
    data = tmp_path / "encoder.json"
    data.write_text(json.dumps({"data": [_source()]}))
    line = run(
        perf_analyzer,
        triton,
        "kobart_encoder",
        tmp_path / "report.csv",
        f"--input-data={data}",
        *("-H", f"{GRPC_KEY_HEADER}:{triton.admin_key.value}"),
        "--shared-memory=system",
        f"--output-shared-memory-size={1 << 20}",
    )
    assert float(line["Inferences/Second"]) > 0


def _source() -> dict[str, Any]:
    shape = [SOURCE_LEN]
    ids = {"content": list(range(100, 100 + SOURCE_LEN)), "shape": shape}
    return {"input_ids": ids, "attention_mask": {"content": [1] * SOURCE_LEN, "shape": shape}}


def _requests(profile: Path) -> list[dict[str, Any]]:
    (experiment,) = json.loads(profile.read_text(encoding="utf-8"))["experiments"]
    requests: list[dict[str, Any]] = experiment["requests"]
    return requests
