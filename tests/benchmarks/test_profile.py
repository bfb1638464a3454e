"""`kobart-bench profile` on kobart-mini, and what its groups are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import main
from benchmarks.operators import summarize
from benchmarks.phases import PHASES
from client.perf.statistics import Spread
from client.report.document import COMPLETE, read_report


def test_quick_run(mini_build: Path, tmp_path: Path) -> None:
    flags = ("--quick", "--num-beams", "2", "--max-new-tokens", "24")
    assert main(["profile", str(mini_build), *flags, "--output", str(tmp_path)]) == 0
    report = read_report(tmp_path / "report.json")
    assert report.status == COMPLETE
    phases, encoder, decoder = (report.table(name) for name in ("phases", "encoder", "decoder"))
    assert phases is not None
    assert [row["phase"] for row in phases.rows] == list(PHASES)
    shares = {str(row["phase"]): float(str(row["share"])) for row in phases.rows}
    assert sum(shares.values()) == pytest.approx(100, abs=0.01)
    assert shares["encode"] + shares["decode step"] > 50
    assert all(isinstance(row["ms"], Spread) and row["ms"].low > 0 for row in phases.rows)
    for table, layers in ((encoder, 4), (decoder, 3)):
        assert table is not None
        names = {str(row["part"]) for row in table.rows if row["kind"] == "layers"}
        assert {f"layer {number + 1}" for number in range(layers)} | {"after the layers"} == names
        for kind in ("operators", "layers"):
            parts = [float(str(row["share"])) for row in table.rows if row["kind"] == kind]
            assert sum(parts) == pytest.approx(100, abs=0.01)
    assert report.findings[0].en.startswith("The bottleneck is ")


def node(name: str, operator: str, us: int) -> dict[str, Any]:
    return {"name": f"{name}_kernel_time", "dur": us, "args": {"op_name": operator}}


def test_groups_and_layers() -> None:
    call = [
        node("/embed_tokens/Gather", "Gather", 1),
        node("/q_proj/MatMul", "MatMul", 10),
        node("/MatMul", "FusedMatMul", 5),
        node("/fc1/MatMul", "MatMul", 20),
        node("/final_layer_norm/LayerNormalization", "LayerNormalization", 2),
        node("/Reshape_9", "Reshape", 3),
        node("/k_proj_4/MatMul", "MatMul", 7),
        node("/lm_head/MatMul", "MatMul", 40),
        node("/TopK", "TopK", 4),
    ]
    slow = [{**each, "dur": 100 * each["dur"]} for each in call]
    found = summarize([*call, *slow, *call], len(call))
    assert found.by_group == {
        "language-model head": 44,
        "feed-forward": 20,
        "attention projections": 10,
        "cross-attention K/V": 7,
        "attention products": 5,
        "shapes and copies": 3,
        "layer norms": 2,
        "embeddings": 1,
    }
    assert found.by_layer == {"layer 1": 38, "after the layers": 54}
    assert found.total_us == 92
