"""Documents and pairs as people have them: the one reader that every command uses.

    pairs.py      a file to documents with their summaries
    inputs.py     the arguments of kobart-summarize to documents
    table.py      a file to rows, by its suffix
    columns.py    which columns hold the text and its summary
    json_lines.py, delimited.py, parquet.py     the formats
    encodings.py  bytes to text
    options.py    columns and encoding as they were asked for, and their flags
    notes.py      what is worth telling and no error
    rows.py       one row, whatever its format

Needs the standard library alone; Parquet needs pyarrow. Every text that comes out has LF for its
line ends.
"""

from __future__ import annotations

from kobart_documents.inputs import Document, DocumentInput, open_inputs
from kobart_documents.options import ReadOptions, add_reading_flags
from kobart_documents.pairs import Pair, PairFile, read_pairs, read_texts, write_jsonl

__all__ = [
    "Document",
    "DocumentInput",
    "Pair",
    "PairFile",
    "ReadOptions",
    "add_reading_flags",
    "open_inputs",
    "read_pairs",
    "read_texts",
    "write_jsonl",
]
