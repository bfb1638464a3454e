from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cli import main
from client.perf.statistics import Spread
from client.report.document import Cell, Report
from tests.client.report.example import REPORT, TABLE


def report(**cells: Cell) -> Report:
    """The example with one row, whose cells are given."""
    row = {"load": "1", "tokens": 5, "remark": "", **cells}
    return replace(REPORT, tables=(replace(TABLE, rows=(row,)),))


def diff(folder: Path, before: Report, after: Report, *flags: str) -> int:
    for name, each in (("a.json", before), ("b.json", after)):
        (folder / name).write_text(each.to_json(), encoding="utf-8")
    return main(["diff", str(folder / "a.json"), str(folder / "b.json"), *flags])


def spread(*values: float) -> Spread:
    return Spread.of(values)


def test_only_what_lies_beyond_the_repeats_is_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = report(rate=spread(10, 11), p95=spread(100, 110))
    after = report(rate=spread(10.5, 12), p95=spread(150, 160))
    assert diff(tmp_path, before, after) == 1
    out = capsys.readouterr().out
    assert "worse   levels: 1: Latency p95  105 -> 155 ms (1.48x)" in out
    assert "Throughput" not in out
    assert "1 worse, 1 no clear difference" in out


def test_the_better_direction_depends_on_the_figure(tmp_path: Path) -> None:
    before = report(rate=spread(10, 11), p95=spread(100, 110))
    faster = report(rate=spread(20, 21), p95=spread(50, 55))
    assert diff(tmp_path, before, faster) == 0
    assert diff(tmp_path, faster, before) == 1


def test_json_lists_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = report(rate=spread(10, 11), p95=100.0)
    after = report(rate=spread(20, 21), p95=300.0)
    assert diff(tmp_path, before, after, "--json") == 0
    rate, p95 = json.loads(capsys.readouterr().out)
    assert (rate["verdict"], rate["before"], rate["after"]) == ("better", 10.5, 20.5)
    assert p95["verdict"] == "not judged: one repeat"


def test_reports_that_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = report(rate=spread(1, 2))
    assert diff(tmp_path, one, replace(one, command="kobart-bench engine")) == 1
    assert "have nothing to compare" in capsys.readouterr().err
    assert diff(tmp_path, one, replace(one, tables=())) == 1
    assert "no row in common" in capsys.readouterr().err
    assert main(["diff", str(tmp_path / "a.json"), str(tmp_path / "missing.json")]) == 1
    assert "is not a report of kobart-bench" in capsys.readouterr().err


def test_another_machine_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = report(rate=spread(1, 2))
    other = replace(one, machine=replace(one.machine, cpu="another"))
    assert diff(tmp_path, one, other) == 0
    assert "different machines" in capsys.readouterr().err
