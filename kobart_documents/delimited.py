"""CSV and TSV with a header, as spreadsheets and pandas write them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kobart_documents.encodings import open_text
from kobart_documents.rows import Choose, Row
from kobart_runtime.errors import DocumentError

# Python's own limit is 131,072 characters, less than some articles; this is the largest that
# every platform's C long holds.
_MAX_FIELD_CHARACTERS = 2**31 - 1


def read_delimited(
    path: Path, encoding: str | None, choose: Choose, delimiter: str
) -> Iterator[Row]:
    """The rows below the header; empty lines are none.

    Raises:
        DocumentError: Quotes are not closed, or a row has more or fewer fields than the header.
    """
    csv.field_size_limit(_MAX_FIELD_CHARACTERS)
    with open_text(path, encoding, newline="") as file:
        records = _records(path, csv.reader(file, delimiter=delimiter, strict=True))
        _, header = next(records, (1, []))
        header = [name.strip() for name in header]
        if not header:
            return
        indexes = [header.index(name) for name in choose(header)]
        for number, (line, record) in enumerate(records, start=1):
            if len(record) != len(header):
                raise DocumentError(
                    f"{path}, line {line} has {len(record)} fields, the header names "
                    f"{len(header)}: put fields that hold {delimiter!r} or line ends in "
                    "double quotes"
                )
            yield Row(number, f"line {line}", tuple(record[index] for index in indexes))


def _records(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line that it begins on."""
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DocumentError(
                f"{path}, line {line}: the record that begins here is malformed ({error}): close "
                'every quote, and double those inside a quoted field ("")'
            ) from error
        if record is None:
            return
        if record:
            yield line, record
