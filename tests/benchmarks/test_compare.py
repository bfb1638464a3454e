"""`kobart-bench compare` on kobart-mini: every system in a process of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.compare_content import CompareResults, compare_content, pareto_front
from benchmarks.contestants import Contestant, Round, one_round, runners
from client.perf.statistics import NO_CLEAR_DIFFERENCE, Spread
from client.report.document import COMPLETE, read_report
from kobart_runtime.errors import EngineError
from kobart_runtime.settings import GenerationSettings
from tests.conftest import MINI_CHECKPOINT

SOURCES = [[np.array([5, 6, 7], np.int32)]]


def test_quick_run(mini_build: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2", reason="pip install 'kobart-triton[peers]'")
    flags = ("--quick", "--num-beams", "1", "--max-new-tokens", "32")
    source = ("--checkpoint", str(MINI_CHECKPOINT), "--output", str(tmp_path))
    assert main(["compare", str(mini_build), *source, *flags]) == 0
    report = read_report(tmp_path / "report.json")
    assert report.status == COMPLETE
    assert report.headlines[0].value == mini_build.name
    table = report.table("systems")
    assert table is not None
    rows = {str(row["system"]): row for row in table.rows}
    peers = ["CTranslate2 float32", "CTranslate2 int8"]
    assert list(rows) == ["PyTorch fp32", mini_build.name, *peers]
    assert [rows[name]["same"] for name in list(rows)[:3]] == [100, 100, 100]
    assert rows["PyTorch fp32"]["kept"] == 100
    # A process without PyTorch is smaller than one with it.
    memory: dict[str, Any] = {name: row["memory"] for name, row in rows.items()}
    assert memory[mini_build.name] < memory["PyTorch fp32"]
    assert all(isinstance(row["rate"], Spread) and row["rate"].low > 0 for row in rows.values())


def test_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--output", str(tmp_path)]) == 1
    assert "name builds, or give --standard" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_here(
    mini_build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--quick", "--no-peers", "--checkpoint", "/nowhere", "--output", str(tmp_path))
    assert main(["compare", str(mini_build), *arguments]) == 1
    assert "the checkpoint /nowhere has no weights here" in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class Failing(Contestant):
    def open(self) -> Any:
        raise ValueError("no such engine")


@dataclass(frozen=True, kw_only=True)
class Dying(Contestant):
    def open(self) -> Any:
        raise SystemExit(7)


@pytest.mark.parametrize(
    ("contestant", "message"),
    [
        (Failing(name="one", size_mb=1), "one: ValueError: no such engine"),
        (Dying(name="two", size_mb=1), r"two died \(exit code 7\)"),
    ],
)
def test_a_system_that_fails_is_named(contestant: Contestant, message: str) -> None:
    with (
        runners([contestant]) as started,
        pytest.raises(EngineError, match=message),
    ):
        started[0].run(partial(one_round, batches=SOURCES, settings=GenerationSettings()))


def results(**systems: tuple[float, list[float]]) -> CompareResults:
    """ROUGE-L and seconds of each repeat, by name; the first is the baseline."""
    found = CompareResults(
        baseline=next(iter(systems)), least_rouge_share=0.99, builds=tuple(systems)[1:]
    )
    for name, (rouge, seconds) in systems.items():
        found.add(name, 1.0, [[1, 2]], rouge)
        for each in seconds:
            found.time(name, Round([each], [[1, 2]], 100.0))
    return found


def test_the_fastest_build_that_keeps_the_score_is_recommended() -> None:
    found = results(
        torch=(0.5, [1.0, 1.0]),
        fp32=(0.5, [0.5, 0.5]),
        int8=(0.497, [0.25, 0.25]),
        pruned=(0.4, [0.1, 0.1]),
    )
    assert found.recommended == "int8"
    content = compare_content(found)
    assert content is not None
    assert "This run cannot tell" not in content.findings[0].en
    assert [row["speed"] for row in content.tables[0].rows][2] == "4.00x (4.00-4.00)"


def test_builds_that_cannot_be_told_apart_are_named() -> None:
    found = results(torch=(0.5, [1.0, 1.0]), a=(0.5, [0.5, 0.7]), b=(0.5, [0.55, 0.6]))
    content = compare_content(found)
    assert content is not None
    assert str(found.recommended) in content.findings[0].en
    assert "This run cannot tell it from" in content.findings[0].en


def test_no_speed_up_is_claimed_where_repeats_overlap() -> None:
    content = compare_content(results(torch=(0.5, [1.0, 0.8]), a=(0.5, [0.9, 0.7])))
    assert content is not None
    assert content.tables[0].rows[1]["speed"] == NO_CLEAR_DIFFERENCE
    assert NO_CLEAR_DIFFERENCE in json.dumps([headline.value for headline in content.headlines])


def test_no_build_is_good_enough() -> None:
    found = results(torch=(0.5, [1.0, 1.0]), a=(0.3, [0.5, 0.5]))
    assert found.recommended is None
    assert compare_content(results(torch=(0.5, []))) is None


def test_random_weights_are_timed_and_not_scored() -> None:
    found = results(torch=(0.5, [1.0, 1.0]), a=(0.5, [0.5, 0.5]))
    found.is_trained = False
    assert found.recommended is None
    content = compare_content(found)
    assert content is not None
    assert content.findings[0].en == "The weights are random: no ROUGE, and no recommendation."
    (table,) = content.tables
    assert all("rouge" not in row for row in table.rows)
    assert table.rows[1]["speed"] == "2.00x (2.00-2.00)"
    assert [plot.name for plot in content.plots] == ["speed", "memory", "size"]


def test_pareto_front() -> None:
    assert pareto_front([(1, 0.9), (2, 0.8), (1.5, 0.7), (2, 0.8)]) == (0, 1, 3)
