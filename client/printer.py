"""What `kobart-summarize` prints: summaries on standard output, the rest on standard error."""

from __future__ import annotations

import dataclasses
import json
import sys

from client.errors import ModelNotReadyError, ServerUnreachableError
from client.results import Summary
from kobart_documents import Document
from kobart_documents.notes import note
from kobart_runtime.errors import KobartError


class Printer:
    """Prints results and remembers whether there was an error."""

    def __init__(self, *, as_json: bool, with_names: bool) -> None:
        self._as_json = as_json
        self._with_names = with_names
        self.num_documents = 1  # in all
        self._num_summaries = 0
        self._errors: set[str] = set()
        self._num_begun = 0
        self._line_is_open = False

    @property
    def exit_code(self) -> int:
        """0, or 1 once an error was printed."""
        return 1 if self._errors else 0

    def summary(self, document: Document, summary: Summary) -> None:
        """Print a whole summary."""
        if self._as_json:
            fields = {"file": document.name, **dataclasses.asdict(summary)}
            print(json.dumps(fields, ensure_ascii=False), flush=True)
        else:
            self.begin(document)
            self.piece(summary.text)
            self.end()
        self.finished(document, summary)

    def finished(self, document: Document, summary: Summary) -> None:
        """Count a summary that was printed, and tell if it is of a part of the document."""
        self._num_summaries += 1
        if summary.truncated:
            self._truncated(document, summary)

    def begin(self, document: Document) -> None:
        """Name the document that follows, if there are several."""
        if self._with_names:
            print("\n" * bool(self._num_begun) + f"==> {document.name} <==", flush=True)
        self._num_begun += 1

    def piece(self, text: str) -> None:
        """Print a part of a summary at once."""
        self._line_is_open = True  # first: Ctrl-C may come while the piece is written
        print(text, end="", flush=True)

    def end(self) -> None:
        """Close a summary's last line, unless not even its first piece came."""
        if self._line_is_open:
            print(flush=True)
        self._line_is_open = False

    def interrupted(self) -> None:
        """Tell how many of several documents were summarised before Ctrl-C."""
        if self.num_documents > 1:
            print(
                f"interrupted: {self._num_summaries} of {self.num_documents} documents were "
                "summarised",
                file=sys.stderr,
                flush=True,
            )

    def error(self, error: KobartError, document: Document | None = None) -> None:
        """Print an error, once; an error of the server as a whole names no document."""
        server_wide = isinstance(error, ServerUnreachableError | ModelNotReadyError)
        where = f"{document.name}: " if document and self._with_names and not server_wide else ""
        line = f"error: {error.code}: {where}{error}"
        if line not in self._errors:
            self._errors.add(line)
            print(line, file=sys.stderr, flush=True)

    def _truncated(self, document: Document, summary: Summary) -> None:
        limit = summary.num_input_tokens  # a truncated source has as many as the build takes
        note(
            f"{document.name} is longer than the build's limit of {limit} tokens: the summary is "
            f"of its first {limit} alone"
        )
