"""Put the tables of reports into docs/benchmarks.md, and one plot beside it.

    python -m benchmarks.documented build/reports/*/report.json

The section of the page that has the name of a report's folder is replaced as a whole; the others
stay.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from builders.paths import DOCS
from client.report.document import PARTIAL, QUICK_NOTE, Report, read_report
from client.report.plain import table_markdown
from client.report.plots import to_svg_file
from client.report.writing import write_whole
from kobart_runtime.errors import ConfigError, KobartError

PAGE = DOCS / "benchmarks.md"
PICTURE = DOCS / "images" / "rouge-speed.svg"
PICTURED = "rouge-speed"


def section(report: Report) -> str:
    """What the page says of a report."""
    machine, noise = report.machine, report.noise
    gpu = f", {machine.gpu}" if machine.gpu else ""
    lines = [
        f"{report.command}, {machine.date[:10]}, commit {machine.commit}: {machine.cpu}, "
        f"{machine.num_cores} cores{gpu}; load average {noise['load_average']:g}.",
        *(f"Partial: {report.reason}" for _ in (1,) if report.status == PARTIAL),
        *(QUICK_NOTE.en for _ in (1,) if report.is_quick),
        *(finding.en for finding in report.findings),
    ]
    tables = [f"**{table.title.en}**\n\n{table_markdown(table)}" for table in report.tables]
    return "\n\n".join([*lines, *tables])


def replaced(page: str, name: str, report: Report) -> str:
    """The page with the section of that name replaced.

    Raises:
        ConfigError: The page has no such section.
    """
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    text, count = marked.subn(lambda m: f"{m[1]}\n{section(report)}\n\n{m[2]}", page)
    if not count:
        raise ConfigError(f"{PAGE.name} has no section <!-- {name} --> ... <!-- end -->")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.documented", description=__doc__)
    parser.add_argument(
        "reports", type=Path, nargs="+", metavar="report.json", help="below a folder of its name"
    )
    try:
        for path in parser.parse_args(argv).reports:
            report = read_report(path)
            page = PAGE.read_text(encoding="utf-8")
            write_whole(PAGE, replaced(page, path.absolute().parent.name, report))
            for plot in report.plots:
                if plot.name == PICTURED:
                    PICTURE.parent.mkdir(exist_ok=True)
                    write_whole(PICTURE, to_svg_file(plot))
    except KobartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
