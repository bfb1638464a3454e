"""Situations and small talk as typed data, read from the YAML files beside this module."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Line:
    """One turn of a speaker (1 or 2), in several phrasings of which a dialogue uses one."""

    speaker: int
    phrasings: tuple[str, ...]


@dataclass(frozen=True)
class Exchange:
    """Lines that stay together; an optional exchange may be left out."""

    lines: tuple[Line, ...]
    optional: bool


@dataclass(frozen=True)
class Outcome:
    """One way in which a situation ends: its script, and the summary that follows from it."""

    situation: str
    name: str
    bank: str
    summary: str
    script: tuple[Exchange, ...]


def read_yaml(name: str) -> Any:
    """Return the content of one of the corpus's YAML files."""
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def parse_script(text: str) -> tuple[Exchange, ...]:
    """Parse exchanges separated by blank lines; the format is described in situations.yaml."""
    return tuple(_parse_exchange(block) for block in text.strip().split("\n\n"))


def _parse_exchange(block: str) -> Exchange:
    optional = block.startswith("? ")
    return Exchange(tuple(map(_parse_line, block.removeprefix("? ").splitlines())), optional)


def _parse_line(text: str) -> Line:
    speaker, _, phrasings = text.partition(": ")
    return Line(int(speaker), tuple(phrasing.strip() for phrasing in phrasings.split(" | ")))


@lru_cache
def outcomes(held_out: bool) -> tuple[Outcome, ...]:
    """Return the outcomes of the trained situations, or those of the situation held out."""
    return tuple(
        Outcome(
            situation["name"],
            outcome["name"],
            situation["bank"],
            outcome["summary"],
            parse_script(outcome["script"]),
        )
        for situation in read_yaml("situations.yaml")
        if situation.get("held_out", False) is held_out
        for outcome in situation["outcomes"]
    )


@lru_cache
def small_talk(bank: str) -> tuple[Exchange, ...]:
    """Return the exchanges that may be mixed into situations of a bank."""
    texts = read_yaml("small_talk.yaml")
    return parse_script(texts["any"]) + parse_script(texts[bank])
