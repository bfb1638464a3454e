"""The table of full-size bytes and milliseconds, from the measurement that is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.pages import machine_line, markdown_table
from benchmarks.results import read_json
from builders.paths import DOCS

MEASUREMENTS = DOCS / "measurements" / "sizes.json"
HEADERS = {
    "en": (
        "build",
        "parameters, M",
        "checkpoint, MiB",
        "encoder.onnx, MiB",
        "decoder.onnx, MiB",
        "encode 8 x 512, ms",
        "step 8 x 1, ms",
        "step 8 x 4, ms",
    ),
    "ko": (
        "빌드",
        "파라미터, 백만",
        "체크포인트, MiB",
        "encoder.onnx, MiB",
        "decoder.onnx, MiB",
        "인코딩 8 x 512, ms",
        "스텝 8 x 1, ms",
        "스텝 8 x 4, ms",
    ),
}
SCALES = {  # key -> what one unit of the table is
    "parameters": 1e6,
    "checkpoint_bytes": 2**20,
    "encoder_onnx_bytes": 2**20,
    "decoder_onnx_bytes": 2**20,
    "encode_8x512_ms": 1,
    "decode_step_8x1_ms": 1,
    "decode_step_8x4_ms": 1,
}

Row = Mapping[str, Any]


def tables() -> dict[str, Callable[[], str]]:
    """By the names that pages ask for them with."""
    report = read_json(MEASUREMENTS)
    return {
        "sizes": partial(_sizes, report["rows"], "en"),
        "sizes-ko": partial(_sizes, report["rows"], "ko"),
        "sizes-machine": partial(machine_line, report["machine"]),
    }


def _sizes(rows: list[Row], language: str) -> str:
    """In brackets the ratio to the first row."""
    return markdown_table(HEADERS[language], [_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    name = f"{row['precision']} + `{row['prune']}`" if row["prune"] else row["precision"]
    figures = [
        f"{row[key] / scale:.1f} ({row[f'{key}_ratio']:.2f})" for key, scale in SCALES.items()
    ]
    return (name, *figures)
