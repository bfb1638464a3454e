"""Section `growth`: how tokens a second grow with slots, source length and beams."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.contestants import runners
from benchmarks.generation_cases import measure_case
from benchmarks.generation_results import Section
from benchmarks.generation_setup import Setup, contestants_of, settings_of


def measure(setup: Setup) -> Section:
    """Our int8 and CTranslate2's, each at its best setting for every point."""
    every = [*setup.ours(), *setup.ctranslate2()]
    systems = [system for system in every if system.precision == "int8"]
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
