"""The table of what the compiler makes of the graphs."""

from __future__ import annotations

from typing import Any

from benchmarks.compiled import MEASUREMENTS, MODELS, PAGE, PORTABLE, PRECISIONS, TENSORRT, tables
from benchmarks.compiled import _table as table
from benchmarks.pages import filled
from benchmarks.results import read_json


def row(layout: str, kernels: int, scratch: tuple[int, int]) -> dict[str, Any]:
    profiles = [
        {
            "activation_bytes": mib << 20,
            "num_kernels": kernels - index,
            "num_attentions": 2,
            "products": {"Half": 5},
            "num_copies": 4,
            "num_kv_copies": 1,
        }
        for index, mib in enumerate(scratch)
    ]
    return {
        "model": "m",
        "engine": "decoder",
        "precision": "fp16",
        "layout": layout,
        "plan_bytes": 3 << 20,
        "profiles": profiles,
    }


def test_what_differs_stands_behind_an_arrow() -> None:
    text = table([row(PORTABLE, 9, (1, 40)), row(TENSORRT, 7, (20, 3))])
    assert text.splitlines()[-1] == (
        "| m, decoder, fp16 | 9 → 7 | 2 | 4 | 1 | 0 / 5 / 0 | 40 → 20 | 3 |"
    )


def test_the_page_shows_the_committed_figures_of_everything_promised() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert filled(text, tables()) == text
    rows = read_json(MEASUREMENTS)["rows"]
    found = {(r["model"], r["engine"], r["precision"], r["layout"]) for r in rows}
    assert found == {
        (model, engine, precision, layout)
        for model in MODELS
        for engine in ("encoder", "decoder")
        for precision in PRECISIONS
        for layout in (PORTABLE, TENSORRT)
    }
