"""A report as Markdown for people, and as one long CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from client.perf.statistics import Spread
from client.report.cells import spread_written, written
from client.report.document import PARTIAL, QUICK_NOTE, Column, Report, Row, Table

CSV_FIELDS = ("table", "row", "column", "unit", "value", "low", "high", "repeats")


def to_markdown(report: Report) -> str:
    """English; a spread stands in brackets behind its median."""
    return "\n".join(_markdown(report)) + "\n"


def table_markdown(table: Table) -> str:
    """One table, as it stands in the documents of this project."""
    columns = table.columns
    marks = ["---:" if _is_number(table, column) else "---" for column in columns]
    lines = [
        _line([_heading(column) for column in columns]),
        _line(marks),
        *(_line([_markdown_cell(row, column) for column in columns]) for row in table.rows),
    ]
    return "\n".join(lines)


def to_csv(report: Report) -> str:
    """One line a cell, so that all tables fit one file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for table in report.tables:
        for row in table.rows:
            writer.writerows(_csv_lines(table, row))
    return text.getvalue()


def _markdown(report: Report) -> Iterator[str]:
    machine = report.machine
    yield f"# {report.title.en}\n"
    if report.status == PARTIAL:
        yield f"**Partial:** {report.reason}\n"
    if report.is_quick:
        yield f"**{QUICK_NOTE.en}**\n"
    yield (
        f"{machine.date}, commit {machine.commit}; {machine.cpu}, {machine.num_cores} cores"
        f"{', ' + machine.gpu if machine.gpu else ''}; {_pairs(report.subject)}\n"
    )
    yield from (
        f"- {headline.title.en}: {headline.value} {headline.unit}".rstrip()
        for headline in report.headlines
    )
    yield from (f"- {finding.en}" for finding in report.findings)
    for table in report.tables:
        yield f"\n## {table.title.en}\n"
        if table.note:
            yield f"{table.note.en}\n"
        yield table_markdown(table)
    yield f"\n## How it was measured\n\n{_pairs(report.settings)}; {_pairs(report.noise)}."
    yield f"Versions: {_pairs(machine.versions)}."


def _csv_lines(table: Table, row: Row) -> Iterator[list[object]]:
    name = " / ".join(table.key_of(row))
    for column in table.columns:
        cell = row.get(column.key)
        if column.is_key or cell is None:
            continue
        values: list[object] = [cell, "", "", ""]
        if isinstance(cell, Spread):
            values = [cell.median, cell.low, cell.high, cell.repeats]
        yield [table.name, name, column.key, column.unit, *values]


def _heading(column: Column) -> str:
    return f"{column.title.en}, {column.unit}" if column.unit else column.title.en


def _markdown_cell(row: Row, column: Column) -> str:
    cell = row.get(column.key)
    spread = spread_written(cell, column)
    return f"{written(cell, column)} ({spread})" if spread else written(cell, column)


def _is_number(table: Table, column: Column) -> bool:
    return any(isinstance(row.get(column.key), int | float | Spread) for row in table.rows)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _pairs(values: dict[str, str] | dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
