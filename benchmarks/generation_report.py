"""The tables of docs/performance.md, from the measurement that is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from benchmarks.generation_plots import AXES, plot_links
from benchmarks.generation_results import MEASUREMENTS, Row, read_sections
from benchmarks.generation_shares import NAMES
from benchmarks.generation_summary import bars_table, machine_lines
from benchmarks.pages import markdown_table

MISSING = "not measured yet"
Table = Callable[[Row], str]


def tables() -> dict[str, Callable[[], str]]:
    """By the names that pages ask for them with."""
    sections = read_sections(MEASUREMENTS)
    found: dict[str, Callable[[], str]] = {
        f"performance-{name}": partial(_of_section, sections, name.split("-")[0], make)
        for name, make in _TABLES.items()
    }
    found["performance-bars"] = partial(_of_all, sections, bars_table)
    found["performance-machine"] = partial(
        _of_all, sections, lambda some: "\n\n".join(machine_lines(some))
    )
    return found


def _of_section(sections: Mapping[str, Row], name: str, make: Table) -> str:
    return make(sections[name]) if name in sections else MISSING


def _of_all(sections: Mapping[str, Row], make: Callable[[Mapping[str, Row]], str]) -> str:
    return make(sections) if sections else MISSING


def spread(found: Mapping[str, Any], digits: int = 1) -> str:
    """Median, and in brackets the lowest and the highest."""
    median, low, high = (f"{found[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def _cases(section: Row) -> str:
    rows = [
        (
            row["case"],
            row["system"],
            spread(row["tokens_per_s"]),
            f"{row['best']:.1f}",
            f"{row['identical_share']:.1%}",
            "; ".join(filter(None, (row["setting"], row["note"]))),
        )
        for row in section["rows"]
        if "system" in row
    ]
    header = ("case", "system", "tokens/s", "best", "ids as PyTorch fp32", "setting")
    return markdown_table(header, rows)


def _ratios(section: Row) -> str:
    """Within one precision; the ratios across precisions are bars."""
    rows = [
        (row["case"], f"{row['of']} / {row['to']}", spread(row["ratio"], 2))
        for row in section["rows"]
        if row.get("ratio")
    ]
    return markdown_table(("case", "systems", "ratio"), rows)


def _traffic(section: Row) -> str:
    rows = [
        (
            row["system"],
            spread(row["tokens_per_s"]),
            spread(row["latency_p50_s"], 2),
            spread(row["latency_p95_s"], 2),
            row.get("setting", ""),
        )
        for row in section["rows"]
    ]
    return markdown_table(("system", "tokens/s", "latency p50, s", "p95, s", "setting"), rows)


def _arrival(section: Row) -> str:
    rows = [
        (
            row["precision"],
            spread(row["step_ms"]),
            spread(row["encode_ms"]),
            spread(row["first_token_ms"]),
            spread(row["steps_to_first_token"], 2),
            spread(row["total_ms"]),
            spread(row["static_ms"]),
            spread(row["of_static"], 2),
        )
        for row in section["rows"]
    ]
    header = ("build", "step, ms", "encode, ms", "first token, ms", "in steps, without encode")
    return markdown_table((*header, "whole, ms", "static, ms", "of static"), rows)


def _growth(section: Row, axis: str) -> str:
    rows = [row for row in section["rows"] if row["axis"] == axis]
    values = list(dict.fromkeys(row["value"] for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    cells = {(row["system"], row["value"]): spread(row["tokens_per_s"]) for row in rows}
    lines = [(name, *(cells[name, value] for value in values)) for name in systems]
    return markdown_table((AXES[axis], *map(str, values)), lines)


def _growths(section: Row) -> str:
    return "\n\n".join(_growth(section, axis) for axis in AXES)


def _machine_limits(section: Row) -> str:
    limits = section["settings"]["limits"]
    rows = [(f"memory, {name}", f"{speed:.1f} GB/s") for name, speed in limits["gb_s"].items()]
    rows += [
        (f"arithmetic, {name}", f"{speed:.0f} GOP/s") for name, speed in limits["gop_s"].items()
    ]
    return markdown_table(("limit", "measured"), rows)


def _limits(section: Row) -> str:
    rows = [
        (
            f"{row['precision']}, {row['call']}",
            f"{row['mb']:.1f}",
            f"{row['gop']:.2f}",
            f"{row['ms']:.2f}",
            f"{row['bandwidth_share']:.0%}",
            f"{row['arithmetic_share']:.0%}",
        )
        for row in section["rows"]
    ]
    header = ("engine call", "MB", "GOP", "ms", "of the bandwidth", "of the arithmetic")
    return markdown_table(header, rows)


def _shares(section: Row) -> str:
    return markdown_table(
        ("case", *_share_headers(), "step, ms", "between steps, ms"), _share_rows(section["rows"])
    )


def _share_headers() -> Iterable[str]:
    names = {"other": "other operators", "host": "selection and Python"}
    return [names.get(name, name) for name in NAMES]


def _share_rows(rows: Iterable[Row]) -> Iterable[tuple[str, ...]]:
    for row in rows:
        shares = [f"{row['shares'][name]:.1%}" for name in NAMES]
        times = (spread(row["engine_ms"], 2), spread(row["host_ms"], 2))
        yield f"{row['case']}, {row['precision']}", *shares, *times


_TABLES: dict[str, Table] = {  # what stands before the first hyphen is the section
    "cases": _cases,
    "cases-ratios": _ratios,
    "mixed": _traffic,
    "served": _traffic,
    "arrival": _arrival,
    "growth": _growths,
    "growth-plots": plot_links,
    "limits-machine": _machine_limits,
    "limits": _limits,
    "shares": _shares,
}
