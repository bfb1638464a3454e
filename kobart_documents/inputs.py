"""The documents that a command line names: whole files of text, standard input, rows of tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kobart_documents.encodings import decode, unreadable
from kobart_documents.options import ReadOptions
from kobart_documents.table import Table, is_table
from kobart_runtime.errors import DocumentError
from kobart_runtime.newlines import to_lf

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Document:
    """One text and where it came from."""

    name: str  # the file as it was named, or "-"; FILE:ROW for a row of a table
    text: str  # line ends are LF


class DocumentInput:
    """One argument: a file that is one text, or a table with a text in every row."""

    def __init__(self, name: str, options: ReadOptions) -> None:
        self.name = name
        self._options = options
        path = Path(name)
        is_rows = name != STANDARD_INPUT and is_table(path)
        self._table = Table(path, options, summaries=False) if is_rows else None

    @property
    def is_table(self) -> bool:
        """Whether it is read as rows."""
        return self._table is not None

    def count(self) -> int:
        """How many documents it holds; a table is read to its end and thereby checked.

        Raises:
            DocumentError: A table cannot be read or holds no documents.
        """
        if self._table is None:
            return 1
        count = sum(1 for _ in self._table)
        self._table.report(count)
        return count

    def __iter__(self) -> Iterator[Document]:
        """The documents, one after the other.

        A byte order mark and the line ends that close a file of text are not part of the text.

        Raises:
            DocumentError: The input cannot be read.
        """
        if self._table is None:
            text = to_lf(decode(self._read(), self.name, self._options.encoding))
            yield Document(self.name, text.rstrip("\n"))
        else:
            for row in self._table:
                yield Document(f"{self.name}:{row.number}", row.values[0])

    def _read(self) -> bytes:
        if self.name == STANDARD_INPUT:
            return sys.stdin.buffer.read()
        try:
            return Path(self.name).read_bytes()
        except OSError as error:
            raise unreadable(self.name, error) from error


def open_inputs(names: Sequence[str], options: ReadOptions) -> list[DocumentInput]:
    """The inputs that arguments name; without any, standard input.

    Raises:
        DocumentError: A column is named and there is no table.
    """
    inputs = [DocumentInput(name, options) for name in names or [STANDARD_INPUT]]
    if options.text_column is not None and not any(each.is_table for each in inputs):
        raise DocumentError(
            f"--text-column {options.text_column} needs a file with columns: its name must end in "
            ".csv, .tsv, .jsonl, .json or .parquet"
        )
    return inputs
