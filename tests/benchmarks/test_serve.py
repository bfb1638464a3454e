"""`kobart-bench serve` on kobart-mini, with the real perf_analyzer and the real Triton."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.serve_results import Probe, ServeResults
from benchmarks.subjects import serving
from client.perf.records import Chunk, RequestRecord, figures
from client.perf.statistics import Spread
from client.report.document import COMPLETE, PARTIAL, QUICK_NOTE, Report, read_report
from server.stubs import find_stubs
from server.supervisor import TritonServer
from tests.browser import CHROMIUM, Browser

pytestmark = pytest.mark.triton


def read(folder: Path) -> Report:
    return read_report(folder / "report.json")


def test_quick_run(mini_build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--quick", "--output", str(tmp_path / "out"), "--num-beams", "2", "--load", "50")
    assert main(["serve", str(mini_build), *flags]) == 0
    report = read(tmp_path / "out")
    assert report.status == COMPLETE
    assert report.subject["precision"] == "fp32"
    assert "num_beams 2" in report.settings["generation"]
    levels = report.table("levels")
    assert levels is not None
    assert [row["load"] for row in levels.rows][:2] == ["1 in flight", "4 in flight"]
    one = levels.rows[0]
    assert isinstance(one["requests"], Spread)
    assert one["requests"].repeats == 2
    assert isinstance(one["p50"], Spread)
    # One in flight, one request after the other: half of them take up to twice the mean.
    assert 0 < one["requests"].median * one["p50"].median <= 2000
    assert one["failed"] == 0
    out = capsys.readouterr().out
    assert "report:" in out
    assert QUICK_NOTE.en in out
    assert report.is_quick
    pages = [(tmp_path / "out" / name).read_text("utf-8") for name in ("report.md", "report.html")]
    for page_text in (*pages, out):
        assert "replica" not in page_text.lower()
        assert "복제본" not in page_text
    if not CHROMIUM:
        pytest.skip("the page was not looked at: apt-get install chromium")
    page = tmp_path / "out" / "report.html"
    with Browser(tmp_path / "chromium") as browser:
        browser.open(page, width=390)
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
        assert browser.evaluate("document.querySelectorAll('figure svg').length") == 4
        assert browser.requests == [page.resolve().as_uri()]


def test_a_server_that_dies_leaves_a_partial_report(
    mini_build: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is killed in the midst of the second level, whose requests its model does not answer."""
    pids: list[int] = []
    add = ServeResults.add

    @contextmanager
    def noted(build: Path, log: Path, *models: str) -> Iterator[TritonServer]:
        with serving(build, log, *models) as server:
            pids.append(server.pid)
            yield server

    def add_and_kill(self: ServeResults, *measured: Any) -> None:
        add(self, *measured)
        if len(self.levels) == 1:
            for stub in find_stubs(pids[0]):
                os.kill(stub.pid, signal.SIGSTOP)
            threading.Timer(0.3, os.kill, (pids[0], signal.SIGKILL)).start()

    monkeypatch.setattr("benchmarks.serve.serving", noted)
    monkeypatch.setattr(ServeResults, "add", add_and_kill)
    assert main(["serve", str(mini_build), "--quick", "--output", str(tmp_path / "out")]) == 1
    assert "tritonserver died (killed by SIGKILL)" in capsys.readouterr().err
    report = read(tmp_path / "out")
    assert report.status == PARTIAL
    assert "tritonserver died" in report.reason
    levels = report.table("levels")
    assert levels is not None
    assert [row["load"] for row in levels.rows] == ["1 in flight"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--url", "127.0.0.1:9"), "no Triton gRPC server answers at 127.0.0.1:9"),
        (("--num-beams", "99"), r"num_beams must be 1..8, got 99"),
        (("--lengths", "long"), "lengths must be CHARACTERS"),
        (("--data", "{empty}"), "holds no documents"),
        (("--data", "{malformed}"), "line 2 must be"),
        (("--data", "/nowhere.jsonl"), "/nowhere.jsonl cannot be read"),
        (("--data", "/nowhere"), "/nowhere has an unknown format"),
        (("--text-column", "글"), "has no column '글', it has 'id', 'dialogue'"),
        (("--encoding", "klingon"), "encoding 'klingon' is unknown"),
        (("--output", "{empty}/folder"), "cannot be written"),
    ],
)
def test_bad_input_is_one_clear_error(
    flags: tuple[str, str],
    message: str,
    mini_build: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {"empty": tmp_path / "empty.jsonl", "malformed": tmp_path / "malformed.jsonl"}
    files["empty"].write_text("\n")
    files["malformed"].write_text('{"dialogue": "가", "summary": "나"}\n{"dialogue": "가"\n')
    given = [flag.format(**files) for flag in flags]
    output = () if "--output" in given else ("--output", str(tmp_path / "out"))
    assert main(["serve", str(mini_build), "--quick", *output, *given]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if message in line and line.startswith("error: ")]


def test_not_a_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "is not a build" in capsys.readouterr().err


def answered(latency_s: float) -> RequestRecord:
    return RequestRecord(start_s=0, chunks=(Chunk(time_s=latency_s, num_tokens=5),))


def test_replicas_follow_from_the_highest_rate_that_met_the_target() -> None:
    results = ServeResults(target_ms=500, load_per_s=100)
    assert results.num_replicas is None
    for rate, latency_s in ((8, 0.9), (4, 0.4), (6, 0.45), (7, 0.6)):
        found = figures([answered(latency_s)] * 20)
        results.probes.append(Probe.of(rate, found, results.target_ms))
    assert (results.highest_rate, results.num_replicas) == (6, 17)
