"""`kobart-bench diff`: what got slower between two reports, beyond the spread of their repeats."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from client.perf.statistics import NO_CLEAR_DIFFERENCE, Ratio, Spread, ratio
from client.report.document import QUICK_NOTE, Cell, Column, Report, Table, read_report
from kobart_runtime.errors import ConfigError, KobartError

COMMAND = "diff"
WORSE, BETTER = "worse", "better"
NOT_JUDGED = "not judged: one repeat"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One figure that both reports have."""

    table: str
    row: str
    column: str
    unit: str
    before: float
    after: float
    verdict: str  # WORSE, BETTER, NO_CLEAR_DIFFERENCE or NOT_JUDGED


def compare_reports(before: Report, after: Report) -> list[Change]:
    """Every figure for which a report says which direction is better.

    Raises:
        ConfigError: They are reports of different commands, or have no figure in common.
    """
    if before.command != after.command:
        raise ConfigError(
            f"reports of {before.command!r} and {after.command!r} have nothing to compare"
        )
    changes = list(_changes(before, after))
    if not changes:
        raise ConfigError("the two reports have no row in common: compare runs of the same plan")
    return changes


def _changes(before: Report, after: Report) -> Iterator[Change]:
    for table in after.tables:
        earlier = before.table(table.name)
        if earlier is not None:
            yield from _table_changes(earlier, table)


def _table_changes(before: Table, after: Table) -> Iterator[Change]:
    earlier = {before.key_of(row): row for row in before.rows}
    for row in after.rows:
        key = after.key_of(row)
        for column in after.columns:
            old, new = _spread(earlier.get(key, {}).get(column.key)), _spread(row.get(column.key))
            if column.better and old and new:
                yield Change(
                    table=after.name,
                    row=" / ".join(key),
                    column=column.title.en,
                    unit=column.unit,
                    before=old.median,
                    after=new.median,
                    verdict=_verdict(old, new, column),
                )


def _spread(cell: Cell) -> Spread | None:
    """A cell as a spread; a single number has one repeat."""
    if isinstance(cell, Spread) or cell is None:
        return cell
    return None if isinstance(cell, str) else Spread.of([float(cell)])


def _verdict(before: Spread, after: Spread, column: Column) -> str:
    found = ratio(after, before)
    if found is None:
        return NOT_JUDGED
    if not found.is_clear:
        return NO_CLEAR_DIFFERENCE
    return WORSE if _is_up(found) == (column.better == "lower") else BETTER


def _is_up(found: Ratio) -> bool:
    return found.low > 1


def _print(changes: list[Change]) -> None:
    clear = [change for change in changes if change.verdict in (WORSE, BETTER)]
    for change in sorted(clear, key=lambda each: each.verdict, reverse=True):
        times = f"{change.after / change.before:.2f}x"
        name = f"{change.table}: {change.row}: {change.column}"
        unit = f" {change.unit}" if change.unit else ""
        print(
            f"{change.verdict:6}  {name}  {change.before:.4g} -> {change.after:.4g}{unit} ({times})"
        )
    counts = {verdict: sum(c.verdict == verdict for c in changes) for verdict in _VERDICTS}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))


_VERDICTS = (WORSE, BETTER, NO_CLEAR_DIFFERENCE, NOT_JUDGED)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's flags."""
    parser = subparsers.add_parser(
        COMMAND,
        help="what got slower between two reports, beyond noise",
        description="Compare two report.json of the same command. A figure is worse or better "
        "only if no repeat of one run lies within the spread of the other.",
        epilog="exit status: 0; 1 if anything is worse, or after an error",
    )
    parser.add_argument("before", type=Path, metavar="A.json", help="the earlier report.json")
    parser.add_argument("after", type=Path, metavar="B.json", help="the later one")
    parser.add_argument("--json", action="store_true", help="every figure, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns its exit code."""
    try:
        before, after = read_report(args.before), read_report(args.after)
        changes = compare_reports(before, after)
    except KobartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if before.machine.cpu != after.machine.cpu or before.machine.gpu != after.machine.gpu:
        print("note: the reports come from different machines", file=sys.stderr)
    if before.is_quick or after.is_quick:
        print(f"note: {QUICK_NOTE.en}", file=sys.stderr)
    if args.json:
        print(json.dumps([asdict(change) for change in changes], ensure_ascii=False, indent=1))
    else:
        _print(changes)
    return int(any(change.verdict == WORSE for change in changes))
