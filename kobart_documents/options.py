"""Which columns and which encoding a file of documents was said to have, and the flags for it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from kobart_documents.encodings import check_encoding

FORMATS = ".jsonl or .json (one object a line), .csv, .tsv or .parquet"
TEXT_COLUMN_HELP = (
    "column or field that holds the text (default: the first of dialogue, document, text, news, "
    "article that is there)"
)
SUMMARY_COLUMN_HELP = (
    "column or field that holds the summary (default: the first of summary, abstract, title that "
    "is there)"
)
ENCODING_HELP = "of files of text, such as cp949 or utf-16 (default: utf-8)"


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read a file of documents.

    Raises:
        DocumentError: The encoding is unknown.
    """

    text_column: str | None = None  # None: a usual name
    summary_column: str | None = None  # None: a usual name
    encoding: str | None = None  # None: UTF-8

    def __post_init__(self) -> None:
        if self.encoding is not None:
            check_encoding(self.encoding)

    @classmethod
    def given(cls, args: argparse.Namespace) -> ReadOptions:
        """What the flags of `add_reading_flags` say.

        Raises:
            DocumentError: The encoding is unknown.
        """
        return cls(
            text_column=args.text_column,
            summary_column=getattr(args, "summary_column", None),
            encoding=args.encoding,
        )


def add_reading_flags(parser: argparse._ActionsContainer, *, summaries: bool = True) -> None:
    """Add `--text-column`, `--encoding` and, where summaries are read, `--summary-column`."""
    parser.add_argument("--text-column", metavar="NAME", help=TEXT_COLUMN_HELP)
    if summaries:
        parser.add_argument("--summary-column", metavar="NAME", help=SUMMARY_COLUMN_HELP)
    parser.add_argument("--encoding", metavar="NAME", help=ENCODING_HELP)
