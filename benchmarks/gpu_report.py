"""The report of `benchmarks.gpu`: `gpu.json`, and `gpu.md` made from it alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.decoding import table
from benchmarks.gpu_measure import ModelFigures, Row, Sizes, describe
from client.report.document import QUICK_NOTE

EMPTY = "not measured"


def write_report(
    folder: Path, machine: dict[str, Any], sizes: Sizes, models: Sequence[ModelFigures]
) -> None:
    """Write both files; each appears whole or not at all."""
    content = {"machine": machine, "sizes": vars(sizes), "models": [describe(m) for m in models]}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "gpu.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    _write(folder / "gpu.md", markdown(machine, sizes, models))


def markdown(machine: dict[str, Any], sizes: Sizes, models: Sequence[ModelFigures]) -> str:
    """The tables."""
    parts = ["# Measured on a GPU", "Written by `benchmarks.gpu`: do not edit.", _machine(machine)]
    if sizes.is_quick:
        parts.append(f"**{QUICK_NOTE.en}**")
    for model in models:
        weights = "trained" if model.trained else "random: no ROUGE-L, no gate is enforced"
        parts += [
            f"## {model.name}",
            f"{model.parameters / 1e6:.1f} M parameters, {weights}.",
            f"A pass: the encoder on {sizes.batch} sources of {sizes.source_len} tokens and one "
            f"decoder token of each; {sizes.iterations} passes of each system, in turns. Memory: "
            "what the GPU's use grew by when the system was opened and run alone, without the CUDA "
            "context. ROUGE-L: F1 on characters.",
            _passes(model.rows),
            *_failures(model.rows),
            "### Decoding",
            model.decode_failure or table(model.decode),
        ]
    return "\n\n".join(parts) + "\n"


def _machine(machine: dict[str, Any]) -> str:
    gpu, versions = machine["gpu"], machine["versions"]
    named = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    return "\n".join(
        [
            f"- GPU: {gpu['name']}, {gpu['memory_bytes'] / 1e9:.1f} GB, compute capability "
            f"{'.'.join(map(str, gpu['compute_capability']))}",
            f"- driver {gpu['driver']}, CUDA {gpu['cuda_version']}",
            f"- {named}",
            f"- commit {machine['commit']}, {machine['date']}",
            f"- `{machine['command']}`",
        ]
    )


def _passes(rows: Sequence[Row]) -> str:
    lines = [
        "| system | mean, ms | p50 | p95 | p99 | speed | memory, MB | GPU busy | ROUGE-L | gate |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    base = rows[0].timing.ms
    return "\n".join([*lines, *(_line(row, base) for row in rows)])


def _line(row: Row, base: dict[str, float] | None) -> str:
    timing = row.timing
    cells = [EMPTY] * 7
    if timing.ms:
        cells[:4] = [f"{timing.ms[name]:.2f}" for name in ("mean", "p50", "p95", "p99")]
        cells[4] = f"{base['mean'] / timing.ms['mean']:.2f}x" if base else EMPTY
    if timing.memory_mb is not None:
        cells[5] = f"{timing.memory_mb:.0f}"
    if timing.gpu_utilization is not None:
        cells[6] = f"{timing.gpu_utilization:.0f} %"
    rouge = EMPTY if row.rouge_l is None else f"{row.rouge_l:.4f}"
    return f"| {' | '.join([row.name, *cells, rouge, row.gate or '-'])} |"


def _failures(rows: Sequence[Row]) -> list[str]:
    failed = [f"- {row.name}: {row.timing.failure}" for row in rows if row.timing.failure]
    return ["\n".join(["Not measured:", "", *failed])] if failed else []


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
