"""What all commands share: where a report goes, and that an early end does not lose it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from client.perf.machine import Machine, Quietness
from client.report.document import (
    COMPLETE,
    PARTIAL,
    QUICK_NOTE,
    Headline,
    Plot,
    Report,
    Table,
    Text,
)
from client.report.plots import require_matplotlib
from client.report.writing import prepare_folder, write_report
from kobart_runtime.errors import KobartError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT
REPORTS = Path("build/reports")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a benchmark found, as a report shows it."""

    headlines: tuple[Headline, ...] = ()
    findings: tuple[Text, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()


class Benchmark(Protocol):
    """One command's work; it keeps what it has measured as it goes."""

    command: str
    title: Text
    subject: dict[str, str]
    settings: dict[str, str]

    def measure(self) -> None:
        """Measure everything.

        Raises:
            KobartError: It ended early; what was measured until then is kept.
        """

    def content(self) -> Content | None:
        """What has been measured so far; None if there is nothing to show."""


@dataclass
class _Outcome:
    exit_code: int = 0
    reason: str = ""
    quietness: Quietness = field(default_factory=Quietness)


def add_output(parser: argparse.ArgumentParser, command: str, *, quick: str) -> None:
    """Add the flags of every command that writes a report.

    Args:
        parser: The command's.
        command: Its name, of which the report's folder has its own.
        quick: What `--quick` measures.
    """
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"where the report goes (default: {REPORTS}/{command}-BUILD)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{quick}, to show that all works; the report says so",
    )


def record(make: Callable[[], Benchmark], output: Path, *, is_quick: bool = False) -> int:
    """Run a benchmark and write its report, even of a run that ended early.

    Args:
        make: Makes the benchmark, once it is known that its report can be written.
        output: The folder of the report.
        is_quick: It is a run of `--quick`, and the report says so.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """
    try:
        require_matplotlib()
        prepare_folder(output)
        benchmark = make()
    except KobartError as error:
        return _fail(error)
    outcome = _measure(benchmark)
    content = benchmark.content()
    if content is None:
        return outcome.exit_code or _fail(KobartError("nothing was measured"))
    try:
        *_, page = write_report(_report(benchmark, content, outcome, is_quick), output)
    except KobartError as error:
        return _fail(error)
    _print(content, page, outcome, is_quick)
    return outcome.exit_code


def _measure(benchmark: Benchmark) -> _Outcome:
    outcome = _Outcome()
    try:
        benchmark.measure()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        outcome.exit_code, outcome.reason = EXIT_INTERRUPTED, "interrupted"
    except KobartError as error:
        outcome.exit_code, outcome.reason = _fail(error), str(error)
    return outcome


def _report(benchmark: Benchmark, content: Content, outcome: _Outcome, is_quick: bool) -> Report:
    return Report(
        command=benchmark.command,
        title=benchmark.title,
        machine=Machine.read(),
        subject=benchmark.subject,
        settings=benchmark.settings,
        noise=outcome.quietness.read(),
        status=PARTIAL if outcome.exit_code else COMPLETE,
        reason=outcome.reason,
        is_quick=is_quick,
        **vars(content),
    )


def _print(content: Content, page: Path, outcome: _Outcome, is_quick: bool) -> None:
    for headline in content.headlines:
        print(f"{headline.title.en}: {headline.value} {headline.unit}".rstrip())
    for finding in content.findings:
        print(finding.en)
    if is_quick:
        print(QUICK_NOTE.en)
    print(f"{'partial report' if outcome.exit_code else 'report'}: {page}")


def _fail(error: KobartError) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return EXIT_FAILED
