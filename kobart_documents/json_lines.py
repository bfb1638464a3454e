"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from kobart_documents.encodings import open_text
from kobart_documents.rows import Choose, Row
from kobart_runtime.errors import DocumentError

_FORM = '{"dialogue": "...", "summary": "..."}'
_SHOWN = 60  # characters of a line in an error


def read_json_lines(path: Path, encoding: str | None, choose: Choose) -> Iterator[Row]:
    """The rows of a file; blank lines are none, and the first row names the columns.

    Raises:
        DocumentError: A line is not an object, or lacks a column.
    """
    wanted: Sequence[str] | None = None
    count = 0
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                count += 1
                fields = _fields(line, f"{path}, line {number}")
                wanted = choose(list(fields)) if wanted is None else wanted
                for name in wanted:
                    if name not in fields:
                        raise DocumentError(
                            f"{path}, line {number} has no {name!r}, it has "
                            f"{', '.join(map(repr, fields)) or 'nothing'}: give it one"
                        )
                yield Row(count, f"line {number}", tuple(fields[name] for name in wanted))


def _fields(line: str, where: str) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        return fields
    text = line.strip()
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
    array = text.startswith("[")
    raise DocumentError(
        f"{where} must be a JSON object such as {_FORM}, got {shown!r}"
        + (": write an array's objects one a line, as jq -c '.[]' does" if array else "")
    )
