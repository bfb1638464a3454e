"""What `kobart-bench serve` says of measurements, without measuring."""

from __future__ import annotations

import pytest

from benchmarks.serve_content import serve_content
from benchmarks.serve_plan import ServePlan
from benchmarks.serve_results import Level, Probe, ServeResults
from tests.client.perf.test_records import record


@pytest.mark.parametrize("plan", [ServePlan(), ServePlan.quick(1000, 100)], ids=["whole", "quick"])
def test_replicas_are_counted_by_whole_runs_alone(plan: ServePlan) -> None:
    results = ServeResults(target_ms=1000, load_per_s=100, counts_replicas=plan.counts_replicas)
    records = [record(start, start + 1) for start in range(4)]
    results.add(Level(is_rate=False, value=1), records, None)
    results.probes.append(Probe(rate=8, p95_ms=900, requests_per_s=8, num_failed=0, is_met=True))
    content = serve_content(results)
    assert content is not None
    said = [*(each.title.en for each in content.headlines), *(each.en for each in content.findings)]
    assert any("8.0 requests/s" in each for each in said)
    replicas = [each for each in said if "Replicas" in each or "need" in each]
    assert len(replicas) == (2 if plan.counts_replicas else 0)
    if replicas:
        assert "100 requests/s need 13 such servers, without any in reserve." in replicas
