"""`kobart-bench engine` on kobart-mini, with the real perf_analyzer and the real Triton."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.cli import main
from benchmarks.engine import QUICK
from benchmarks.engine_content import EngineResults, Timing, engine_content
from benchmarks.engine_feeds import (
    Point,
    decoder_feeds,
    encoder_feeds,
    front_decoder_feeds,
    output_names,
    perf_input,
)
from builders.cross_kv import quantize_encoder, write_to_float
from client.perf.statistics import NO_CLEAR_DIFFERENCE, Spread
from client.perf.usage import Usage
from client.report.document import COMPLETE, read_report
from kobart_runtime import bindings
from kobart_runtime.model_config import (
    CROSS_FLOAT_FILE,
    CROSS_INT8_FILES,
    ENCODER_FILE,
    MANIFEST_NAME,
    ModelConfig,
    sha256_of,
)
from kobart_runtime.runners import open_engine

IDS = list(range(100, 400))
USAGE = Usage(cpu_percent=50, peak_memory_mb=100, gpu_percent=None, gpu_memory_mb=None)


def test_feeds_are_what_the_engines_take(mini_build: Path) -> None:
    config = ModelConfig.from_manifest(mini_build / MANIFEST_NAME)
    folder = mini_build / config.name / "1"
    encoder, decoder = (open_engine(folder, role, config) for role in ("encoder", "decoder"))
    point = Point("decoder", 3, 48)
    sources = encoder_feeds(IDS, point)
    assert sources["input_ids"].shape == (3, 48)
    assert sources["input_ids"][0].tolist() == IDS[:48]
    assert sources["input_ids"][1].tolist() == IDS[48:96]
    feeds = decoder_feeds(IDS, point, config, encoder)
    logprobs, ids, *_ = decoder(output_names("decoder", config), feeds)
    assert ids.shape == (3, 4, config.shape.num_candidates)
    assert np.isfinite(logprobs).all()


def test_the_front_model_is_fed_what_it_keeps(mini_build: Path, tmp_path: Path) -> None:
    built = ModelConfig.from_manifest(mini_build / MANIFEST_NAME)
    shape = built.shape
    folder = Path(shutil.copytree(mini_build / built.name / "1", tmp_path / "front"))
    names = bindings.of_layers(bindings.past_cross, shape.num_decoder_layers)
    scales = {name: np.full((shape.num_heads, shape.head_dim), 0.05, np.float32) for name in names}
    quantize_encoder(folder / ENCODER_FILE, folder / CROSS_INT8_FILES[0], scales)
    write_to_float(folder / CROSS_FLOAT_FILE, scales)
    written = {name: sha256_of(folder / name) for name in (CROSS_INT8_FILES[0], CROSS_FLOAT_FILE)}
    config = replace(built, cross_kv="int8", artefacts={**built.artefacts, **written})
    point = Point("decoder", 3, 40)
    feeds = front_decoder_feeds(IDS, point, config, folder)
    sizes = {".key": (shape.head_dim, 40), ".value": (40, shape.head_dim)}
    for name in names:
        wanted = (3, shape.num_heads, *sizes[name[name.rindex(".") :]])
        assert (feeds[name].dtype, feeds[name].shape) == (np.uint8, wanted)
    floats = front_decoder_feeds(IDS, point, built, folder)
    assert {array.dtype for name, array in floats.items() if name in names} == {np.dtype("f4")}
    assert [name for name in feeds if feeds[name].shape != floats[name].shape] == [
        name for name in names if name.endswith(".key")
    ]


def test_the_input_file_holds_the_bytes_of_the_first_request() -> None:
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(2, 3, 2)}
    data: Any = perf_input(feeds)["data"]
    (entry,) = data
    assert entry["x"]["shape"] == [3, 2]
    found = np.frombuffer(base64.b64decode(entry["x"]["b64"]), np.float32)
    assert found.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.triton
def test_quick_run(mini_build: Path, tmp_path: Path) -> None:
    assert main(["engine", str(mini_build), "--quick", "--output", str(tmp_path)]) == 0
    report = read_report(tmp_path / "report.json")
    assert report.status == COMPLETE
    local, served = report.table("in-process"), report.table("served")
    assert local is not None
    assert served is not None
    assert (
        len(local.rows) == len(served.rows) == 2 * len(QUICK.batch_sizes) * len(QUICK.source_lens)
    )
    for row in (*local.rows, *served.rows):
        assert isinstance(row["p50"], Spread)
        assert isinstance(row["p99"], Spread)
        assert 0 < row["p50"].low <= row["p99"].high
    medians = {
        (row["engine"], row["batch"], row["source"]): row["p50"].median  # type: ignore[union-attr]
        for row in local.rows
    }
    # Sixteen times the tokens take longer, whatever else the machine does.
    assert medians["encoder", 4, 256] > medians["encoder", 1, 64]
    assert all(row["memory"] for row in served.rows)


def test_transport_is_what_the_engine_does_not_take() -> None:
    results = EngineResults()
    point = Point("encoder", 1, 64)
    for ours, theirs in ((6.0, 8.0), (6.0, 12.0)):
        results.add_local(point, Timing.of([ours] * 3))
        results.add_served(point, Timing.of([theirs] * 3), USAGE)
    content = engine_content(results)
    assert content is not None
    (row,) = content.tables[1].rows
    assert row["transport"] == Spread(median=37.5, low=25, high=50, repeats=2)
    assert engine_content(EngineResults()) is None


def measured(**repeats: list[tuple[float, float]]) -> EngineResults:
    """Milliseconds in process and through Triton, by role, one pair a repeat."""
    results = EngineResults()
    for role, pairs in repeats.items():
        for ours, theirs in pairs:
            results.add_local(Point(role, 1, 64), Timing.of([ours] * 3))
            results.add_served(Point(role, 1, 64), Timing.of([theirs] * 3), USAGE)
    return results


def test_transport_is_not_told_where_noise_exceeds_it() -> None:
    """In the decoder's first repeat the served call was the faster one: -29 % is no share."""
    content = engine_content(measured(encoder=[(6, 8), (6, 12)], decoder=[(9, 7), (6, 12)]))
    assert content is not None
    assert [row["transport"] for row in content.tables[1].rows] == [
        *(NO_CLEAR_DIFFERENCE, Spread(median=37.5, low=25, high=50, repeats=2))
    ]
    headline = content.headlines[-1]
    assert (headline.value, headline.unit) == ("38 to 38", "%")
    assert content.findings[-1].en.startswith("Transport's share cannot be told for 1 of 2 shapes")
    (series,) = content.plots[-1].series
    assert (series.label, series.y) == ("encoder", (37.5,))


def test_transport_that_is_told_of_no_shape_has_no_figure_and_no_plot() -> None:
    content = engine_content(measured(encoder=[(9, 7), (6, 12)]))
    assert content is not None
    assert (content.headlines[-1].value, content.headlines[-1].unit) == (NO_CLEAR_DIFFERENCE, "")
    assert "transport" not in [plot.name for plot in content.plots]
