"""How a value of a table is written."""

from __future__ import annotations

from client.perf.statistics import Spread
from client.report.document import Cell, Column

NOT_MEASURED = "–"


def written(cell: Cell, column: Column) -> str:
    """The value alone: `12.3`, `1,024`, a text, or a dash."""
    if cell is None:
        return NOT_MEASURED
    if isinstance(cell, str):
        return cell
    value = cell.median if isinstance(cell, Spread) else cell
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{column.digits}f}"


def spread_written(cell: Cell, column: Column) -> str:
    """`11.9–12.8` for a value with repeats that differ, else nothing."""
    if not isinstance(cell, Spread) or cell.repeats < 2:
        return ""
    low, high = (f"{value:,.{column.digits}f}" for value in (cell.low, cell.high))
    return "" if low == high else f"{low}–{high}"
