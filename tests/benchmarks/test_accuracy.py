"""The accuracy tables: what a cell measures, and what the builds of kobart-mini promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import accuracy_cells
from benchmarks.accuracy_cells import BUILDS, CELLS, MINI, Cell, run_cell
from benchmarks.accuracy_report import MEASUREMENTS, cells_by_name
from benchmarks.results import read_json
from kobart_runtime.errors import ConfigError

# Build -> least share of the fp32 build's ROUGE-L.
PROMISED = {
    Cell(precision="int8"): 0.99,
    Cell(prune="structured=0.2", epochs=1): 0.995,
    Cell(prune="global=0.4", epochs=1): 0.98,
}


def test_names_are_distinct_and_every_build_is_a_cell() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert set(BUILDS) <= set(CELLS)


def test_a_cell_is_built_scored_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (MINI / "test.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(accuracy_cells, "TEST_FILE", few)
    cell = Cell(prune="structured=0.5")
    row = run_cell(cell, tmp_path / "work")
    assert row["gate_passed"]
    assert 0.8 < row["rouge_l_characters"] <= 1
    assert 0.9 < row["agreement"] <= 1
    assert 4_723_392 * 0.6 < row["parameters"] < 4_723_392 * 0.8
    assert row["target_sparsity"] == pytest.approx(0.5, abs=0.01)
    monkeypatch.setattr(accuracy_cells, "build", None)  # a second run measures nothing
    assert run_cell(cell, tmp_path / "work") == row


def test_a_cell_that_cannot_be_built_leaves_no_result(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runtime torchscript is for precision fp32, got int8"):
        run_cell(Cell(precision="int8", runtime="torchscript"), tmp_path)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("cell", PROMISED, ids=lambda cell: cell.name)
def test_the_committed_measurements_keep_what_is_promised(cell: Cell) -> None:
    rows = cells_by_name(read_json(MEASUREMENTS)["cells"])
    least = PROMISED[cell] * rows[Cell().name]["rouge_l_characters"]
    assert rows[cell.name]["rouge_l_characters"] >= least


@pytest.mark.slow
@pytest.mark.parametrize("cell", PROMISED, ids=lambda cell: cell.name)
def test_what_is_promised_is_kept(cell: Cell, tmp_path: Path) -> None:
    whole, row = run_cell(Cell(), tmp_path), run_cell(cell, tmp_path)
    assert row["rouge_l_characters"] >= PROMISED[cell] * whole["rouge_l_characters"]
