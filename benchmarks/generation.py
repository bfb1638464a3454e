"""The speed of the generation runtime, beside what a user would take instead.

    python -m benchmarks.generation --all
    python -m benchmarks.generation --only cases,mixed --json docs/measurements/performance.json
    python -m benchmarks.generation --all --quick

Takes full-size KoBART with random weights (124 M parameters; speed does not depend on what the
weights are) and suppresses eos, so that no run ends early. What is compared takes turns, each in a
process of its own, so that a slow moment of the machine hits all of it. docs/performance.md says
what the sections measure. Without --all and --only it is `cases`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.generation_results import MEASUREMENTS, Section, merge_section, read_sections
from benchmarks.generation_setup import Setup
from benchmarks.generation_sizes import FULL, QUICK
from benchmarks.generation_summary import summary
from benchmarks.recording import EXIT_FAILED, EXIT_INTERRUPTED
from builders.paths import KEPT_BUILDS
from client.perf.machine import Machine, Quietness
from client.report.document import QUICK_NOTE
from kobart_runtime.errors import ConfigError, KobartError

# Each a module `generation_NAME` with `measure`, imported when its turn comes: the contestants'
# processes import this module too, and are to hold what they need alone.
SECTIONS = ("cases", "mixed", "served", "arrival", "growth", "limits", "shares")
MIN_REPEATS = 2  # with fewer there is no ratio


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the asked sections one by one; each is written as soon as it is finished.

    Returns:
        The exit code: 0, 1 if a section failed, 130 after Ctrl-C.
    """
    asked = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = asked.json or Path(folder) / MEASUREMENTS.name
        if asked.json is None and asked.all and not asked.quick:
            path = MEASUREMENTS
        try:
            names = list(SECTIONS) if asked.all else section_names(asked.only)
            read_sections(path)  # refused now rather than after the measurement
            setup = _setup(asked, Path(folder))
        except KobartError as error:
            return _fail(error)
        code = _measure(setup, names, path)
        print(summary({n: s for n, s in read_sections(path).items() if n in names}))
        if asked.quick:
            print(QUICK_NOTE.en)
    return code


def section_names(text: str) -> list[str]:
    """Names of sections with commas between them, in the order in which they are measured.

    Raises:
        ConfigError: There is no such section.
    """
    asked = [name.strip() for name in text.split(",")]
    unknown = [name for name in asked if name not in SECTIONS]
    if unknown:
        raise ConfigError(f"no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if name in asked]


def _measure(setup: Setup, names: Sequence[str], path: Path) -> int:
    code = 0
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        quietness = Quietness()
        try:
            section: Section = import_module(f"benchmarks.generation_{name}").measure(setup)
            merge_section(path, name, section, Machine.read(), quietness.read())
        except KobartError as error:
            code = _fail(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr, flush=True)
            return EXIT_INTERRUPTED
    return code


def _setup(asked: argparse.Namespace, work: Path) -> Setup:
    if asked.repeats < MIN_REPEATS:
        raise ConfigError(f"--repeats must be at least {MIN_REPEATS}, got {asked.repeats}")
    build = _mini_build if asked.quick else _full_build
    return Setup(
        fp32=asked.fp32_build or build("fp32"),
        int8=asked.int8_build or build("int8"),
        work=work,
        sizes=QUICK if asked.quick else FULL,
        repeats=asked.repeats,
    )


def _full_build(precision: str) -> Path:
    from benchmarks.sizes import Variant, built

    return built(Variant(precision, pruned=False), KEPT_BUILDS)


def _mini_build(precision: str) -> Path:
    from benchmarks.kept_builds import kept_build

    folder = KEPT_BUILDS / f"benchmarks/kobart-mini-{precision}"
    return kept_build(folder, "--precision", precision, "--runtime", "onnxruntime")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.generation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every section")
    which.add_argument(
        "--only",
        default="cases",
        metavar="SECTION[,SECTION]",
        help=f"some of {', '.join(SECTIONS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="kobart-mini, tiny: shows that it works"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="counted runs (default: %(default)s)"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="put the sections into this file, beside those that it has (default: "
        f"{MEASUREMENTS} for a full --all, otherwise none)",
    )
    for precision in ("fp32", "int8"):
        parser.add_argument(
            f"--{precision}-build",
            type=Path,
            metavar="DIR",
            help=f"the {precision} build (default: made below {KEPT_BUILDS} if it is missing)",
        )
    return parser


def _fail(error: KobartError) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
