"""Documents with their summaries, from one file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kobart_documents.options import ReadOptions
from kobart_documents.table import Table
from kobart_runtime.model_config import sha256_of

USUAL = ReadOptions()


@dataclass(frozen=True)
class Pair:
    """One document and what its summary should say; neither is blank, line ends are LF."""

    text: str
    summary: str


@dataclass(frozen=True)
class PairFile:
    """A file's pairs, in its order."""

    path: Path
    sha256: str  # of the whole file
    columns: tuple[str, ...]  # of the text and of the summary
    pairs: tuple[Pair, ...]
    places: tuple[str, ...]  # where each pair begins in the file: "line 3" or "row 3"


def read_pairs(path: Path, options: ReadOptions = USUAL, limit: int | None = None) -> PairFile:
    """Read a file of pairs; rows with a blank text or summary are left out, and counted in a note.

    Args:
        path: A file of rows: `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet`.
        options: Its columns and encoding.
        limit: At most that many pairs, the first; None: all.

    Raises:
        DocumentError: The file cannot be read or holds no pairs; names the line and what to do.
    """
    table = Table(path, options, summaries=True)
    rows = list(islice(table, limit))
    table.report(len(rows))
    return PairFile(
        path=path,
        sha256=sha256_of(path),
        columns=table.columns,
        pairs=tuple(Pair(*row.values) for row in rows),
        places=tuple(row.place for row in rows),
    )


def read_texts(path: Path, options: ReadOptions = USUAL, limit: int | None = None) -> list[str]:
    """Read the texts of a file whose summaries do not matter; otherwise as `read_pairs`."""
    table = Table(path, options, summaries=False)
    texts = [row.values[0] for row in islice(table, limit)]
    table.report(len(texts))
    return texts


def write_jsonl(path: Path, pairs: Iterable[Pair]) -> None:
    """Write pairs as JSON lines that any command reads."""
    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            fields = {"dialogue": pair.text, "summary": pair.summary}
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
