"""Section `growth`: how tokens a second grow with slots, source length and beams."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.contestants import runners
from benchmarks.generation_cases import measure_case
from benchmarks.generation_results import Section
from benchmarks.generation_setup import Setup, contestants_of, settings_of


def measure(setup: Setup) -> Section:
    """Both of our precisions, and CTranslate2's int8, at every point."""
    peers = [system for system in setup.ctranslate2() if system.precision == "int8"]
    systems = [*setup.ours(), *peers]
    growth = setup.sizes.growth
    rows = []
    with runners(contestants_of(systems)) as started:
        processes = {runner.name: runner for runner in started}
        for axis, value, case in growth.cases():
            rows += [
                {
                    "axis": axis,
                    "value": value,
                    "system": measured.system.name,
                    "setting": measured.option.name,
                    "tokens_per_s": asdict(measured.rate),
                }
                for measured in measure_case(systems, processes, case, setup)
            ]
    return Section(rows=rows, settings=settings_of(setup, {"middle": asdict(growth.middle)}))
