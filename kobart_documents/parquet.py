"""Parquet, through pyarrow: the one file that imports it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kobart_documents.encodings import unreadable
from kobart_documents.rows import Choose, Row
from kobart_runtime.errors import DocumentError

_BATCH_ROWS = 256  # in memory at once


def read_parquet(path: Path, encoding: str | None, choose: Choose) -> Iterator[Row]:
    """The rows of a file, a batch at a time; other columns are not read, the encoding is fixed.

    Raises:
        DocumentError: pyarrow is not installed, or the file is not Parquet.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DocumentError(
            f"reading {path} needs pyarrow: pip install 'kobart-triton[parquet]', or save the file "
            "as .csv or .jsonl"
        ) from error
    number = 0
    try:
        with path.open("rb") as binary, parquet.ParquetFile(binary) as file:
            wanted = list(choose(file.schema_arrow.names))
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                columns: list[list[Any]] = [batch.column(name).to_pylist() for name in wanted]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield Row(number, f"row {number}", values)
    except OSError as error:
        raise unreadable(path, error) from error
    except pyarrow.ArrowException as error:
        raise DocumentError(f"{path} is not Parquet that can be read: {error}") from error
