"""The pages of docs/ that show measurements: their tables and plots, written from what is kept.

python -m benchmarks.guide
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from benchmarks import accuracy_report, generation_plots, generation_report, sizes_report
from benchmarks.pages import fill_pages
from builders.paths import DOCS
from kobart_runtime.errors import KobartError

PAGES = tuple(
    DOCS / name
    for name in ("accuracy.md", "optimization.md", "optimization.ko.md", "performance.md")
)


def tables() -> dict[str, Callable[[], str]]:
    """Every table that a page may ask for, by name."""
    return {**accuracy_report.tables(), **sizes_report.tables(), **generation_report.tables()}


def main(argv: Sequence[str] | None = None) -> int:
    """Write all plots and tables.

    Returns:
        The exit code: 0, or 1 for an error; argparse exits by 2.
    """
    argparse.ArgumentParser(prog="python -m benchmarks.guide", description=__doc__).parse_args(argv)
    try:
        accuracy_report.write_plots()
        generation_plots.write_plots()
        fill_pages(PAGES, tables())
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
