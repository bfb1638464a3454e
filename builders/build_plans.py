"""Build the plans of a prepared folder: `python -m builders.build_plans FOLDER`.

Needs Python 3.10, numpy, polygraphy and tensorrt, and no PyTorch: for machines that have no more.
`kobart-build --runtime tensorrt --prepare` makes such folders.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from builders.disk import disk_errors
from builders.prepared_plans import PlanJob, read_jobs
from builders.workspace import MIB
from kobart_runtime.errors import BuildError, ConfigError, KobartError


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, or 1 for an error; argparse exits by 2.
    """
    options = _parser().parse_args(arguments)
    try:
        folder = Path(options.folder)
        jobs = read_jobs(folder)
        for job in jobs:
            with disk_errors(folder / job.plan):
                _build(folder, job, options)
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _build(folder: Path, job: PlanJob, options: argparse.Namespace) -> None:
    """Write one plan, and beside it what it is."""
    try:
        from builders.engine import EngineOptions, build_plan
    except ImportError as error:
        raise BuildError(f"{error}: pip install numpy polygraphy tensorrt") from error
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise ConfigError(
            f"--workspace-mib must be above 0, got {options.workspace_mib}: leave it out for no "
            "limit"
        )
    engine_options = EngineOptions(
        precision=job.precision,
        workspace_bytes=options.workspace_mib and options.workspace_mib * MIB,
        optimization_level=options.optimization_level,
        sparse_weights=job.sparse_weights,
        timing_cache=folder / "timing.cache",
        tactic_sources=tuple(options.tactic_source) if options.tactic_source else None,
    )
    target = folder / job.plan
    facts = build_plan(folder / job.graph, target, job.profiles, engine_options)
    described = {"precision": facts.precision, **asdict(facts)}
    target.with_suffix(".json").write_text(json.dumps(described, indent=2), encoding="utf-8")
    print(f"{target}: TensorRT {facts.tensorrt}, {facts.build_seconds} s", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m builders.build_plans",
        description="TensorRT plans of a folder that `kobart-build --prepare` made.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="holds the graphs and plans.json")
    parser.add_argument(
        "--workspace-mib",
        type=int,
        metavar="N",
        help="scratch memory that a layer may use (default: as much as it wants)",
    )
    parser.add_argument(
        "--optimization-level",
        type=int,
        default=3,
        metavar="N",
        help="0 builds fastest, 5 looks longest for the fastest kernels (default: %(default)s)",
    )
    parser.add_argument(
        "--tactic-source",
        action="append",
        metavar="NAME",
        help="take kernels of these sources alone, such as JIT_CONVOLUTIONS; may be repeated "
        "(default: all; a machine without cuBLAS and cuDNN needs it)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
