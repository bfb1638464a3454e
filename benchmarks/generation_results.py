"""What a section of the speed benchmark found, and the file in which sections are kept.

Each section carries the machine that it was measured on, so that one can be measured again alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import read_json, write_json
from builders.paths import DOCS
from client.perf.machine import Machine
from client.perf.statistics import Spread, ratio
from client.report.document import rounded
from kobart_runtime.errors import ConfigError

MEASUREMENTS = DOCS / "measurements" / "performance.json"
Row = Mapping[str, Any]
_FIELDS = {"machine", "noise", "settings", "rows", "bars"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A figure that has to reach a limit."""

    name: str
    median: float
    low: float
    high: float
    limit: float
    at_most: bool = False  # otherwise: at least

    @classmethod
    def of_ratio(cls, name: str, ours: Spread, theirs: Spread, limit: float) -> Bar:
        """How many times ours is theirs: the medians' ratio, and what the repeats leave open.

        Raises:
            ConfigError: There are fewer than two repeats.
        """
        found = ratio(ours, theirs)
        if found is None:
            raise ConfigError(f"{name}: a ratio needs at least two repeats of both")
        return cls(name=name, limit=limit, **asdict(found))

    @classmethod
    def of_spread(cls, name: str, found: Spread, limit: float) -> Bar:
        """A figure that must not exceed the limit."""
        low, high = found.low, found.high
        return cls(name=name, median=found.median, low=low, high=high, limit=limit, at_most=True)

    @property
    def is_reached(self) -> bool:
        """By the median."""
        return self.median <= self.limit if self.at_most else self.median >= self.limit


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section's result."""

    rows: Sequence[Row]
    settings: Row  # what was run
    bars: Sequence[Bar] = ()


def merge_section(
    path: Path, name: str, section: Section, machine: Machine, noise: Mapping[str, float]
) -> None:
    """Write a section to a file; its other sections stay as they are.

    Raises:
        ConfigError: The file is there, and is not one of sections.
    """
    sections = {**read_sections(path), name: _record(section, machine, noise)}
    write_json(path, rounded({"sections": sections}))


def read_sections(path: Path) -> dict[str, Any]:
    """The sections of a file by their names; none if there is no file.

    Raises:
        ConfigError: It is not a file of sections.
    """
    if not path.exists():
        return {}
    try:
        sections: dict[str, Any] = read_json(path)["sections"]
        complete = all(set(section) >= _FIELDS for section in sections.values())
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not a file of benchmarks.generation: {error!r}") from error
    if not complete:
        raise ConfigError(f"{path} has a section without {', '.join(sorted(_FIELDS))}")
    return sections


def bars_of(record: Row) -> list[Bar]:
    """The bars of a section as it is kept."""
    return [Bar(**bar) for bar in record["bars"]]


def _record(section: Section, machine: Machine, noise: Mapping[str, float]) -> dict[str, Any]:
    return {
        "machine": asdict(machine),
        "noise": dict(noise),
        "settings": dict(section.settings),
        "rows": [dict(row) for row in section.rows],
        "bars": [asdict(bar) for bar in section.bars],
    }
