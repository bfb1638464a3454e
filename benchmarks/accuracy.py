"""What precision and pruning cost in summaries, on kobart-mini's test split.

    python -m benchmarks.accuracy

Builds kobart-mini in every precision, pruned by every method, with and without fine-tuning; scores
each build against the references and against PyTorch; times the whole builds in turns; and writes
the tables and plots of docs/. Takes about an hour on two cores. What an interrupted run has
measured is kept and not measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.accuracy_cells import BUILDS, CELLS, MINI, TEST_FILE, run_cell
from benchmarks.accuracy_report import MEASUREMENTS
from benchmarks.accuracy_speed import pytorch_score, tokens_per_s
from benchmarks.guide import main as write_guide
from benchmarks.results import write_json
from benchmarks.scoring import Judge
from builders.paths import KEPT_BUILDS
from client.perf.machine import Machine
from kobart_runtime.errors import KobartError


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the pages.

    Returns:
        The exit code: 0, 1 for an error, 130 when interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        write_json(MEASUREMENTS, measure(arguments.work, arguments.repeats))
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what was measured is kept", file=sys.stderr)
        return 130
    return write_guide([])


def measure(work: Path, repeats: int) -> dict[str, Any]:
    """All cells, and the speed of the builds.

    Args:
        work: Holds builds, checkpoints and results.
        repeats: Rounds in which the builds are timed.
    """
    rows = []
    for number, cell in enumerate(CELLS, start=1):
        print(f"== {number}/{len(CELLS)} {cell.name}", flush=True)
        rows.append(run_cell(cell, work))
    judge = Judge.of(MINI, TEST_FILE)
    folders = {cell.name: work / cell.name for cell in BUILDS}
    return {
        "machine": asdict(Machine.read()),
        "documents": {"file": TEST_FILE.name, "count": len(judge.dialogues)},
        "pytorch": pytorch_score(MINI, judge),
        "tokens_per_s": tokens_per_s(MINI, folders, judge.dialogues, repeats),
        "cells": rows,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=KEPT_BUILDS / "accuracy",
        metavar="DIR",
        help="for builds and results (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="rounds of timing (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
