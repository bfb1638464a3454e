"""`kobart-bench`: which build to ship, and how many servers of it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from kobart_runtime.required_packages import required_packages

with required_packages("kobart-bench", "serve,build,report"):
    from benchmarks import compare, diff, engine, profile, serve
    from client.cli import use_utf8

_EPILOG = """\
examples:
  kobart-bench serve build/kobart-fp32 --target-ms 800 --load 250
  kobart-bench compare --standard --checkpoint CHECKPOINT
  kobart-bench profile build/kobart-fp32
  kobart-bench diff before/report.json after/report.json

Every command writes report.json, report.csv, report.md and report.html; docs/benchmarks.md says
how to read them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="kobart-bench",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (engine, serve, compare, profile, diff):
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    logging.basicConfig(format="kobart-bench: %(message)s", level=logging.WARNING)
    use_utf8()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
