"""A file to rows of text: its format by its suffix, its columns by name, blank ones left out."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from kobart_documents.columns import choose_columns
from kobart_documents.delimited import read_delimited
from kobart_documents.json_lines import read_json_lines
from kobart_documents.notes import note
from kobart_documents.options import FORMATS, ReadOptions
from kobart_documents.parquet import read_parquet
from kobart_documents.rows import Choose, Row
from kobart_runtime.errors import DocumentError
from kobart_runtime.newlines import to_lf

Reader: TypeAlias = Callable[[Path, str | None, Choose], Iterator[Row]]
_READERS: dict[str, Reader] = {
    ".jsonl": read_json_lines,
    ".json": read_json_lines,
    ".csv": partial(read_delimited, delimiter=","),
    ".tsv": partial(read_delimited, delimiter="\t"),
    ".parquet": read_parquet,
}


@dataclass(frozen=True)
class Texts:
    """The text of one row, and its summary where summaries are read."""

    number: int  # of the row, from 1
    place: str  # "line 3" or "row 3"
    values: tuple[str, ...]  # none is blank; line ends are LF


class Table:
    """One file, read from the start by every iteration and never in memory as a whole."""

    def __init__(self, path: Path, options: ReadOptions, *, summaries: bool) -> None:
        """Remember what to read.

        Args:
            path: A file of rows.
            options: Its columns and encoding.
            summaries: Whether each text has its summary.

        Raises:
            DocumentError: The name ends as no format does.
        """
        if not is_table(path):
            raise DocumentError(f"{path} has an unknown format: its name must end in {FORMATS}")
        self.path = path
        self.columns: tuple[str, ...] = ()  # empty until the names are known
        self.num_rows = self.num_blank = 0  # of the last iteration so far
        self._options = options
        self._summaries = summaries

    def __iter__(self) -> Iterator[Texts]:
        """The rows in their order, without those that have a blank or missing value.

        Raises:
            DocumentError: The file cannot be read; names the file, the line and what to do.
        """
        self.num_rows = self.num_blank = 0
        read = _READERS[self.path.suffix.lower()]
        for row in read(self.path, self._options.encoding, self._choose):
            self.num_rows += 1
            values = tuple(map(partial(self._text, row), self.columns, row.values))
            if all(value.strip() for value in values):
                yield Texts(row.number, row.place, values)
            else:
                self.num_blank += 1

    def report(self, num_read: int) -> None:
        """Tell of the rows that were left out.

        Args:
            num_read: How many were not.

        Raises:
            DocumentError: None were read.
        """
        named = " or ".join(self.columns)
        if not num_read:
            reason = f": {named} is blank in all of its {self.num_rows} rows" * bool(self.num_rows)
            raise DocumentError(f"{self.path} holds no documents{reason}: give it some")
        if self.num_blank:
            note(
                f"{self.path}: {self.num_blank} of {self.num_rows} rows have a blank {named} and "
                "are left out"
            )

    def _choose(self, names: Sequence[str]) -> tuple[str, ...]:
        if not self.columns:
            self.columns = choose_columns(
                self.path, names, self._options, summaries=self._summaries
            )
        return self.columns

    def _text(self, row: Row, name: str, value: object) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise DocumentError(
                f"{self.path}, {row.place}: {name} must be a text, got {reprlib.repr(value)}: "
                "make it one, or name another column"
            )
        return to_lf(value)


def is_table(path: Path) -> bool:
    """Whether a file is read as rows, by the end of its name."""
    return path.suffix.lower() in _READERS
