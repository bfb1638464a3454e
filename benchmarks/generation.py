"""Tokens per second of generation: PyTorch against this project's runtime, in one run.

    python -m benchmarks.generation

Takes full-size KoBART with random weights (124 M parameters; speed does not depend on what the
weights are), sources of 512 tokens and 64 new tokens, eos suppressed so that no run ends early.
What is compared takes turns, so that a slow moment of the machine hits both; each figure is the
best and the median of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.systems import OurRuntime, System, TorchGenerate
from builders.build_all import main as build_all
from builders.checkpoint import RANDOM_CHECKPOINT, load_checkpoint
from builders.special_ids import IdOverrides
from kobart_runtime.model_config import MANIFEST_NAME
from kobart_runtime.settings import GenerationSettings

FIRST_TEXT_ID = 107  # below lie control tokens


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    num_beams: int
    num_sources: int = 8
    source_len: int = 512
    num_new_tokens: int = 64
    num_ids: int = 5000  # sources are drawn from the ids below; at most the vocabulary

    @property
    def name(self) -> str:
        """As in the table."""
        search = "greedy" if self.num_beams == 1 else f"beam {self.num_beams}"
        return f"{search}, {self.num_sources} x {self.source_len}, {self.num_new_tokens} new"

    @property
    def settings(self) -> GenerationSettings:
        """No rule that either side would spend time on, and no early end."""
        return GenerationSettings(
            num_beams=self.num_beams,
            max_new_tokens=self.num_new_tokens,
            min_new_tokens=self.num_new_tokens,
            no_repeat_ngram_size=0,
        )


@dataclass(frozen=True)
class Measurement:
    """Tokens per second of one system on one case, beams counted once."""

    case: str
    system: str
    best: float
    median: float
    identical_share: float  # of generated ids, against the first system


CASES = (Case(num_beams=1), Case(num_beams=4))


def measure(systems: Sequence[System], case: Case, repeats: int) -> list[Measurement]:
    """Time all systems on one case, in turns, after one run of each that is not counted."""
    rng = np.random.default_rng(0)
    shape = (case.num_sources, case.source_len)
    sources = list(rng.integers(FIRST_TEXT_ID, case.num_ids, shape, dtype=np.int32))
    outputs = [system.generate(sources, case.settings) for system in systems]
    seconds: list[list[float]] = [[] for _ in systems]
    for _ in range(repeats):
        for system, taken in zip(systems, seconds, strict=True):
            started = time.perf_counter()
            system.generate(sources, case.settings)
            taken.append(time.perf_counter() - started)
    num_tokens = case.num_sources * case.num_new_tokens
    return [
        Measurement(
            case=case.name,
            system=system.name,
            best=num_tokens / min(taken),
            median=num_tokens / statistics.median(taken),
            identical_share=_identical_share(output, outputs[0]),
        )
        for system, taken, output in zip(systems, seconds, outputs, strict=True)
    ]


def table(measurements: Sequence[Measurement]) -> str:
    """Markdown; the ratio is to the first system of each case, of the medians."""
    lines = [
        "| case | system | tokens/s, best | tokens/s, median | ratio | ids as first |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    first: dict[str, Measurement] = {}
    for m in measurements:
        base = first.setdefault(m.case, m)
        lines.append(
            f"| {m.case} | {m.system} | {m.best:.1f} | {m.median:.1f} | "
            f"{m.median / base.median:.2f} | {m.identical_share:.1%} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Build what is missing, measure, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.generation", description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build/kobart-base-random-fp32"))
    parser.add_argument("--repeats", type=int, default=3, help="counted runs (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args(argv)
    if not (arguments.build / MANIFEST_NAME).exists():
        build_all(["--checkpoint", RANDOM_CHECKPOINT, "--output", str(arguments.build)])
    ours = OurRuntime(arguments.build)
    systems: list[System] = [TorchGenerate(load_checkpoint(RANDOM_CHECKPOINT, IdOverrides())), ours]
    try:
        measurements = [m for case in CASES for m in measure(systems, case, arguments.repeats)]
    finally:
        ours.close()
    print(f"{_machine()}\n\n{table(measurements)}")
    if arguments.json:
        report = {"machine": _machine(), "measurements": [asdict(m) for m in measurements]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _identical_share(ids: list[list[int]], reference: list[list[int]]) -> float:
    return float(np.mean(np.array(ids) == np.array(reference)))


def _machine() -> str:
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return (
        f"{models[0]}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}"
    )


if __name__ == "__main__":
    sys.exit(main())
