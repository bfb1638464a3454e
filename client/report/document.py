"""A report as data: what every command fills in, and what every format is written from.

The JSON form is described in docs/report-schema.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from client.perf.machine import Machine
from client.perf.statistics import Spread
from kobart_runtime.errors import ConfigError

SCHEMA = "kobart-report/1"
COMPLETE = "complete"
PARTIAL = "partial"
PLOT_KINDS = ("line", "scatter", "bars", "histogram")

Cell: TypeAlias = str | int | float | Spread | None
Row: TypeAlias = Mapping[str, Cell]


@dataclass(frozen=True)
class Text:
    """One sentence or label in both languages of the page."""

    en: str
    ko: str


# What stands on every form of a report that --quick made.
QUICK_NOTE = Text(
    "Made with --quick: too few measurements to decide by. This run shows that everything works.",
    "--quick으로 만든 보고서입니다. 측정 횟수가 적어 판단의 근거로 쓸 수 없으며, 모든 기능이 "
    "동작하는지만 확인한 것입니다.",
)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    key: str
    title: Text
    unit: str = ""
    digits: int = 1  # behind the point
    better: str = ""  # "lower" or "higher"; empty: neither
    is_key: bool = False  # names the row, together with the other key columns


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells; a cell that is None was not measured."""

    name: str
    title: Text
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: Text | None = None

    def key_of(self, row: Row) -> tuple[str, ...]:
        """What names a row."""
        return tuple(str(row.get(column.key)) for column in self.columns if column.is_key)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, set of points or set of bars of a plot."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()  # of y over the repeats; empty: no band
    high: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot; its labels are English alone, since few machines have Korean fonts for matplotlib."""

    name: str
    title: Text
    kind: str  # see PLOT_KINDS
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    ticks: tuple[str, ...] = ()  # names of the x positions 0, 1, 2 ... of bars
    front: tuple[int, ...] = ()  # scatter: series on the Pareto front, joined by a line
    log_x: bool = False


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One figure that stands large at the top."""

    title: Text
    value: str
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one run of a command found."""

    command: str  # "kobart-bench serve" ...
    title: Text
    machine: Machine
    subject: dict[str, str]  # what was measured: build, precision, runtime ...
    settings: dict[str, str]  # how
    noise: dict[str, float]
    headlines: tuple[Headline, ...] = ()
    findings: tuple[Text, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    status: str = COMPLETE
    reason: str = ""  # why it is partial
    is_quick: bool = False  # measured by --quick: QUICK_NOTE stands on it

    def to_json(self) -> str:
        """The report as JSON; see docs/report-schema.md."""
        content = {"schema": SCHEMA, **asdict(self)}
        return json.dumps(rounded(content), ensure_ascii=False, indent=1) + "\n"

    def table(self, name: str) -> Table | None:
        """The table of that name, if there is one."""
        return next((table for table in self.tables if table.name == name), None)


def read_report(path: Path) -> Report:
    """Read a report that `to_json` wrote.

    Raises:
        ConfigError: The file is missing, or is no report of this version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ValueError(f"schema is not {SCHEMA}")
        return _report(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a report of kobart-bench ({error!r}): give the report.json that a "
            "command of this version wrote"
        ) from error


def _report(content: dict[str, Any]) -> Report:
    parts = {
        "title": Text(**content["title"]),
        "machine": Machine(**content["machine"]),
        "headlines": tuple(_headline(each) for each in content["headlines"]),
        "findings": tuple(Text(**each) for each in content["findings"]),
        "plots": tuple(_plot(each) for each in content["plots"]),
        "tables": tuple(_table(each) for each in content["tables"]),
    }
    return Report(**{**content, **parts})


def _headline(content: dict[str, Any]) -> Headline:
    return Headline(**{**content, "title": Text(**content["title"])})


def _table(content: dict[str, Any]) -> Table:
    columns = ({**column, "title": Text(**column["title"])} for column in content["columns"])
    parts = {
        "title": Text(**content["title"]),
        "columns": tuple(Column(**column) for column in columns),
        "rows": tuple({k: _cell(v) for k, v in row.items()} for row in content["rows"]),
        "note": Text(**content["note"]) if content["note"] else None,
    }
    return Table(**{**content, **parts})


def _plot(content: dict[str, Any]) -> Plot:
    series = [{k: _tuple(v) for k, v in each.items()} for each in content["series"]]
    parts = {
        "title": Text(**content["title"]),
        "series": tuple(Series(**each) for each in series),
        "ticks": tuple(content["ticks"]),
        "front": tuple(content["front"]),
    }
    return Plot(**{**content, **parts})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _cell(value: Any) -> Cell:
    return Spread(**value) if isinstance(value, dict) else value


def rounded(value: Any) -> Any:
    """Floats to six significant digits, which is more than any of them is worth."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value
