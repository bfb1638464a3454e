"""Section `limits`: how near the engines come to what the machine's memory and cores can do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contestants import BuildContestant, Contestant, runners
from benchmarks.engine_speed import NUM_ENTRIES, encode_timer, step_timer
from benchmarks.engine_work import Weights, Work, encode_work, step_work
from benchmarks.generation_results import Section
from benchmarks.generation_setup import Setup, settings_of
from benchmarks.generation_sizes import LimitSizes
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.runners import open_runner


@dataclass(frozen=True, kw_only=True)
class Machine(Contestant):
    """A process that measures the machine itself."""

    def open(self) -> None:
        """See `Contestant`."""


@dataclass(frozen=True)
class OpenBuild:
    """Engines without the loop."""

    config: ModelConfig
    folder: Path
    runner: ModelRunner


@dataclass(frozen=True, kw_only=True)
class EnginesContestant(BuildContestant):
    """A build's engines."""

    def open(self) -> OpenBuild:
        """See `Contestant`."""
        config = ModelConfig.from_manifest(self.path / MANIFEST_NAME)
        folder = self.path / config.name / "1"
        return OpenBuild(config, folder, open_runner(folder, config.engines))


def measure(setup: Setup) -> Section:
    """The machine first, then every engine call against it."""
    sizes = setup.sizes.limits
    with runners([Machine(name="machine")]) as (process,):
        limits = process.run(partial(machine_limits, sizes=sizes))
    engines = [
        EnginesContestant(name=precision, path=setup.build(precision).path)
        for precision in ("fp32", "int8")
    ]
    with runners(engines) as started:
        rows = [
            row
            for process in started
            for row in process.run(partial(engine_rows, sizes=sizes, limits=limits))
        ]
    return Section(rows=rows, settings=settings_of(setup, {"limits": limits}))


def machine_limits(_: None, sizes: LimitSizes) -> dict[str, dict[str, float]]:
    """Bandwidth and arithmetic, in the machine's own process."""
    # Imported here: onnx is needed by this process alone.
    from benchmarks.machine_limits import bandwidth_gb_s, operations_gop_s

    cores = os.cpu_count() or 1
    return {
        "gb_s": bandwidth_gb_s(sizes.array_mb, sizes.num_calls, cores),
        "gop_s": operations_gop_s(sizes.matrix_size, sizes.num_calls),
    }


def engine_rows(
    opened: OpenBuild, sizes: LimitSizes, limits: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """A row for encode, and one for each decode step."""
    runner, shape = opened.runner, opened.config.shape
    encoder, decoder = (Weights.read(opened.folder / f) for f in opened.config.engines.files)
    cache = runner.new_cache(0, 0, 0)
    slots, length = sizes.slots, sizes.source_len
    works = {f"encode {slots} x {length}": encode_work(encoder, shape, slots, length)}
    timers = {f"encode {slots} x {length}": encode_timer(runner, slots, length)}
    for rows, beams in ((1, 1), (slots, 1), (slots, 4)):
        name = f"decode step {rows} x {beams}"
        works[name] = step_work(decoder, shape, cache, rows, beams, length, NUM_ENTRIES)
        timers[name] = step_timer(runner, rows, length, beams)
    precision = opened.config.precision
    found = []
    for name, work in works.items():
        timers[name]()  # not counted
        seconds = min(timers[name]() for _ in range(sizes.num_calls)) / 1000
        figures = shares(work, seconds, limits, precision)
        found.append({"precision": precision, "call": name, **figures})
    return found


def shares(
    work: Work, seconds: float, limits: Mapping[str, Mapping[str, float]], precision: str
) -> dict[str, float]:
    """A call's figures, and what shares of the machine's limits they are."""
    bandwidth = max(limits["gb_s"].values())
    products = limits["gop_s"]
    float_gop_s = products["MatMul"]
    int8_gop_s = max(speed for name, speed in products.items() if name != "MatMul")
    weights_gop_s = int8_gop_s if precision == "int8" else float_gop_s
    return {
        "mb": work.num_bytes / 1e6,
        "gop": work.num_operations / 1e9,
        "ms": 1000 * seconds,
        "bandwidth_share": work.num_bytes / seconds / (1e9 * bandwidth),
        "arithmetic_share": work.busy_s(weights_gop_s, float_gop_s) / seconds,
    }
