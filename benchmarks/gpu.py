"""The figures of a GPU, by one command: `make gpu`, or `python -m benchmarks.gpu`.

Builds TensorRT plans in fp32, fp16 and int8 and in fp16 of a pruned model, compares each with
PyTorch by kobart-build's own gates, and measures them beside PyTorch on the same GPU. Writes
gpu.json and gpu.md. Without a GPU or TensorRT it says what is missing and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gpu_machine import describe_machine, require_gpu, require_packages
from benchmarks.gpu_measure import QUICK, Sizes, measure_model
from benchmarks.gpu_report import write_report
from benchmarks.gpu_variants import FULL, MINI, VARIANTS, Model, Variant, build_variants, prepare
from builders.gpu import Gpu
from builders.gpu_sampler import GpuSampler
from builders.measuring import Watch
from builders.paths import DOCS
from kobart_runtime.errors import KobartError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, or 1 where something is missing; argparse exits by 2.
    """
    options = _parser().parse_args(argv)
    models = (MINI,) if options.quick else (MINI, FULL)
    try:
        if options.prepare:
            _prepare(models, options.prepare)
            return 0
        gpu = require_gpu()
        if options.check_gpu:
            print(f"{gpu.name} answers")
            return 0
        require_packages()
        with TemporaryDirectory(prefix="kobart-gpu-") as work:
            sizes = QUICK if options.quick else Sizes()
            run(gpu, models, VARIANTS, sizes, GpuSampler, Path(work), options.output)
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {options.output / 'gpu.json'}, {options.output / 'gpu.md'}")
    return 0


def run(
    gpu: Gpu,
    models: Sequence[Model],
    variants: Sequence[Variant],
    sizes: Sizes,
    watch: Callable[[], Watch],
    work: Path,
    output: Path,
) -> None:
    """Build, measure, write.

    Args:
        gpu: Where it runs.
        models: What is built.
        variants: How.
        sizes: How much is measured.
        watch: Makes what samples the GPU.
        work: Folder for the builds.
        output: Folder for the report.
    """
    figures = []
    for number, model in enumerate(models):
        builds = build_variants(model, variants, work / str(number))
        figures.append(measure_model(model, builds, watch, sizes))
    write_report(output, describe_machine(gpu), sizes, figures)


def _prepare(models: Sequence[Model], target: Path) -> None:
    for number, model in enumerate(models):
        prepare(model, VARIANTS, target / ("mini", "full")[number])
    print(
        f"prepared: copy {target} and this checkout to a machine with a GPU, then for each folder "
        "below it: python -m builders.build_plans FOLDER"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="kobart-mini alone, few passes: shows that all works, and the report says so",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=DOCS,
        metavar="DIR",
        help="folder of gpu.json and gpu.md (default: %(default)s)",
    )
    parser.add_argument(
        "--prepare",
        type=Path,
        metavar="DIR",
        help="only write the graphs and profiles for builders.build_plans; needs no GPU",
    )
    parser.add_argument(
        "--check-gpu", action="store_true", help="only tell whether a GPU answers, by exit code"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
