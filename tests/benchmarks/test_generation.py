"""`python -m benchmarks.generation`: every section on kobart-mini, and how sections are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import generation
from benchmarks.generation import SECTIONS, main, section_names
from benchmarks.generation_report import MISSING, spread
from benchmarks.generation_results import Bar, Section, bars_of, merge_section, read_sections
from benchmarks.generation_setup import has_bfloat16
from benchmarks.generation_shares import NAMES
from benchmarks.generation_sizes import FULL, QUICK
from benchmarks.generation_summary import NO_INT8_FLAGS, machine_lines, summary
from client.perf.machine import Machine
from client.perf.statistics import Spread
from kobart_runtime.errors import ConfigError, EngineError


@pytest.fixture
def empty_machine() -> Machine:
    return Machine.read()


def spread_of(*values: float) -> Spread:
    return Spread.of(values)


def test_a_bar_is_reached_by_its_median() -> None:
    bar = Bar.of_ratio("x", spread_of(4, 6, 8), spread_of(2, 3, 4), 2.0)
    assert (bar.median, bar.low, bar.high) == (2.0, 1.0, 4.0)
    assert bar.is_reached
    assert not Bar.of_ratio("x", spread_of(4, 6), spread_of(3, 3), 2.0).is_reached
    assert Bar.of_spread("x", spread_of(0.1, 0.3, 0.4), 0.35).is_reached
    assert not Bar.of_spread("x", spread_of(0.1, 0.4, 0.4), 0.35).is_reached


def test_one_repeat_makes_no_ratio() -> None:
    with pytest.raises(ConfigError, match="needs at least two repeats"):
        Bar.of_ratio("x", spread_of(4), spread_of(2), 2.0)


def test_a_section_is_replaced_and_its_neighbours_stay(
    tmp_path: Path, empty_machine: Machine
) -> None:
    path = tmp_path / "kept.json"
    bar = Bar.of_spread("x", spread_of(1, 2), 3)
    merge_section(path, "mixed", Section(rows=[{"a": 1}], settings={}), empty_machine, {})
    merge_section(path, "cases", Section(rows=[], settings={}, bars=[bar]), empty_machine, {})
    merge_section(path, "mixed", Section(rows=[{"a": 2}], settings={}), empty_machine, {})
    sections = read_sections(path)
    assert set(sections) == {"mixed", "cases"}
    assert sections["mixed"]["rows"] == [{"a": 2}]
    assert bars_of(sections["cases"]) == [bar]
    assert sections["cases"]["machine"]["commit"] == empty_machine.commit


@pytest.mark.parametrize("content", ["[]", "{", '{"sections": {"cases": {}}}'])
def test_another_file_is_not_overwritten(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    assert main(["--quick", "--json", str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == content


def test_section_names() -> None:
    assert section_names("growth, cases") == ["cases", "growth"]
    with pytest.raises(ConfigError, match="no section speed: there are cases, mixed"):
        section_names("cases,speed")


def test_one_repeat_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--repeats", "1"]) == 1
    assert "--repeats must be at least 2, got 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "kept"),
    [
        (EngineError("broken"), 1, {"cases", "served"}),
        (KeyboardInterrupt(), 130, {"cases"}),
    ],
    ids=["a failure", "Ctrl-C"],
)
def test_finished_sections_survive(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    kept: set[str],
) -> None:
    class Module:
        def __init__(self, name: str) -> None:
            self._fails = name.endswith("mixed")

        def measure(self, setup: object) -> Section:
            if self._fails:
                raise error
            return Section(rows=[], settings={})

    monkeypatch.setattr(generation, "import_module", Module)
    path = tmp_path / "kept.json"
    builds = ["--fp32-build", str(tmp_path), "--int8-build", str(tmp_path)]
    assert main(["--only", "cases,mixed,served", "--json", str(path), *builds]) == code
    assert set(read_sections(path)) == kept


def test_the_summary_says_what_the_bars_are_for(empty_machine: Machine) -> None:
    def lines(flags: str) -> list[str]:
        return machine_lines({"cases": {"machine": {**vars(empty_machine), "cpu_flags": flags}}})

    assert NO_INT8_FLAGS in lines("avx2 avx512f")
    assert NO_INT8_FLAGS not in lines("avx2 avx512_vnni")


def test_full_sizes_are_what_the_page_says() -> None:
    assert [case.name for case in FULL.cases] == [
        "greedy, 8 x 512, 64 new",
        "greedy, 1 x 512, 64 new",
        "beam 4, 8 x 512, 64 new",
        "beam 4, 1 x 512, 64 new",
    ]
    points = [(axis, value) for axis, value, _ in FULL.growth.cases()]
    assert len(points) == len(set(points)) == 6 + 6 + 5 + 5
    case = next(
        case for axis, value, case in FULL.growth.cases() if (axis, value) == ("source", 64)
    )
    assert (case.num_beams, case.num_sources, case.source_len, case.num_new_tokens) == (
        4,
        4,
        64,
        32,
    )


def test_a_spread_is_its_median_with_its_bounds() -> None:
    assert spread(vars(spread_of(1, 2, 4)), 2) == "2.00 (1.00-4.00)"


@pytest.mark.triton
def test_quick_run(mini_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float32 build stands for the int8 one, which takes longer to make than all of this."""
    pytest.importorskip("ctranslate2", reason="pip install 'kobart-triton[peers]'")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # threads of idle peers let others work
    path = tmp_path / "quick.json"
    builds = ["--fp32-build", str(mini_build), "--int8-build", str(mini_build)]
    arguments = ["--all", "--quick", "--repeats", "2", "--json", str(path)]
    assert main([*arguments, *builds]) == 0
    sections = json.loads(path.read_text(encoding="utf-8"))["sections"]
    assert tuple(sections) == SECTIONS
    _check_cases(sections["cases"]["rows"])
    traffic = QUICK.traffic
    wanted = sum(settings.max_new_tokens for settings in traffic.settings())
    assert {row["num_tokens"] for row in sections["mixed"]["rows"]} == {wanted}
    assert all(
        0 < row["latency_p50_s"]["low"] <= row["latency_p95_s"]["high"]
        for row in (*sections["mixed"]["rows"], *sections["served"]["rows"])
    )
    for row in sections["arrival"]["rows"]:
        assert row["encode_ms"]["low"] < row["first_token_ms"]["high"] < row["total_ms"]["high"]
    points = {(row["axis"], row["value"]) for row in sections["growth"]["rows"]}
    assert len(points) == 8
    assert all(row["bandwidth_share"] > 0 for row in sections["limits"]["rows"])
    for row in sections["shares"]["rows"]:
        assert set(row["shares"]) == set(NAMES)
        assert sum(row["shares"].values()) == pytest.approx(1, abs=1e-4)
        assert min(row["shares"].values()) > 0
    num_bars = {name: len(section["bars"]) for name, section in sections.items()}
    assert num_bars == dict(zip(SECTIONS, (4, 2, 1, 4, 0, 0, 1), strict=True))
    assert summary(sections).count("reached |") == 12
    monkeypatch.setattr("benchmarks.generation_report.MEASUREMENTS", path)
    tables = generation_tables()
    assert all(MISSING not in table and "None" not in table for table in tables.values())
    assert tables["performance-mixed"].count("\n") == 4  # the loop, static batches, the peer


def _check_cases(rows: list[dict[str, Any]]) -> None:
    """In float32 all systems generate what PyTorch does."""
    shares = {
        (row["case"], row["system"]): row["identical_share"] for row in rows if "system" in row
    }
    num_systems = 5 + has_bfloat16(Machine.read().cpu_flags)
    assert len(shares) == len(QUICK.cases) * num_systems
    ours = [share for (_, system), share in shares.items() if system.startswith("kobart-triton")]
    assert len(ours) == len(QUICK.cases) * 2
    assert set(ours) == {1}
    assert all(row["tokens_per_s"]["low"] > 0 for row in rows if "system" in row)
    assert len([row for row in rows if row.get("ratio")]) == len(QUICK.cases) * 2


def generation_tables() -> dict[str, str]:
    from benchmarks.generation_report import tables

    return {name: make() for name, make in tables().items()}
