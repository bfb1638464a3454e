"""Dialogues with their summaries, from JSON lines or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import sha256_of

COLUMNS = ("dialogue", "summary")


@dataclass(frozen=True)
class Pair:
    """One dialogue and the summary to learn."""

    dialogue: str
    summary: str


@dataclass(frozen=True)
class PairFile:
    """A file's pairs, in its order."""

    path: Path
    sha256: str
    pairs: tuple[Pair, ...]
    lines: tuple[int, ...]  # where each pair ends in the file, from 1


def read_pairs(path: Path, limit: int | None = None) -> PairFile:
    """Read a `.jsonl` file of `{"dialogue": ..., "summary": ...}` lines, or a `.csv` with a header.

    Args:
        path: The file, UTF-8; other fields or columns are left alone.
        limit: At most that many of its pairs; None: all.

    Raises:
        ConfigError: The file is missing, empty or of another kind; a line is malformed.
    """
    readers = {".jsonl": _jsonl, ".csv": _csv}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"{path} must end in {' or '.join(readers)}")
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front of their CSV.
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(islice(readers[path.suffix.lower()](path, file), limit))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise ConfigError(f"{path} holds no pairs: it must have at least one")
    lines, pairs = zip(*rows, strict=True)
    return PairFile(path, sha256_of(path), pairs, lines)


def write_jsonl(path: Path, pairs: tuple[Pair, ...]) -> None:
    """Write pairs as JSON lines."""
    lines = (json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)
    path.write_text("".join(lines), encoding="utf-8")


def _jsonl(path: Path, file: TextIO) -> Iterator[tuple[int, Pair]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}, line {number} is not JSON: {error}") from error
            yield number, _pair(f"{path}, line {number}", row)


def _csv(path: Path, file: TextIO) -> Iterator[tuple[int, Pair]]:
    reader = csv.DictReader(file, strict=True)
    try:
        header = list(reader.fieldnames or ())
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise ConfigError(
                f"{path} has no column {' and no column '.join(missing)}, its first line names "
                f"{', '.join(header) or 'nothing'}: it must name {' and '.join(COLUMNS)}"
            )
        for row in reader:
            yield reader.line_num, _pair(f"{path}, line {reader.line_num}", row)
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num} is not CSV: {error}") from error


def _pair(where: str, row: object) -> Pair:
    values = [row.get(name) for name in COLUMNS] if isinstance(row, dict) else []
    if not values or not all(isinstance(value, str) and value.strip() for value in values):
        raise ConfigError(f"{where} needs a {' and a '.join(COLUMNS)}, both text that is not blank")
    return Pair(*map(str, values))
