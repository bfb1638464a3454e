"""Whether the speed benchmark's bars are reached: a table, and what machine it is about."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.generation_results import Bar, Row, bars_of
from benchmarks.pages import machine_line

INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8")  # what the bars were set for
NO_INT8_FLAGS = (
    "The bars are for machines with AMX or VNNI, which multiply int8 in one instruction; this one "
    "has neither."
)


def summary(sections: Mapping[str, Row]) -> str:
    """Every bar of some sections, as Markdown."""
    return "\n\n".join([bars_table(sections), *machine_lines(sections)])


def bars_table(sections: Mapping[str, Row]) -> str:
    """Every bar with its figure, and whether it is reached."""
    lines = ["| bar | measured | spread | limit | |", "| --- | ---: | ---: | ---: | --- |"]
    lines += [_line(bar) for section in sections.values() for bar in bars_of(section)]
    return "\n".join(lines)


def machine_lines(sections: Mapping[str, Row]) -> list[str]:
    """What each section was measured on, and what to think of it."""
    machines: dict[str, list[str]] = {}
    for name, section in sections.items():
        machines.setdefault(machine_line(section["machine"]), []).append(name)
    lines = [f"{', '.join(names)}: {line}" for line, names in machines.items()]
    known = [section["machine"]["cpu_flags"].split() for section in sections.values()]
    if known and not any(flag in flags for flags in known for flag in INT8_FLAGS):
        lines.append(NO_INT8_FLAGS)
    return lines


def _line(bar: Bar) -> str:
    limit = f"{'<=' if bar.at_most else '>='} {bar.limit:g}"
    verdict = "reached" if bar.is_reached else "not reached"
    spread = f"{bar.low:.2f}-{bar.high:.2f}"
    return f"| {bar.name} | {bar.median:.2f} | {spread} | {limit} | {verdict} |"
