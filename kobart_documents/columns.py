"""Which columns of a file hold the texts and their summaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kobart_documents.notes import note
from kobart_documents.options import ReadOptions
from kobart_runtime.errors import DocumentError

USUAL_NAMES = {
    "text": ("dialogue", "document", "text", "news", "article"),
    "summary": ("summary", "abstract", "title"),
}


def choose_columns(
    path: Path, names: Sequence[str], options: ReadOptions, *, summaries: bool
) -> tuple[str, ...]:
    """The columns to read: the text's, then the summary's where summaries are read.

    Where several have usual names, a note says which was taken.

    Args:
        path: For errors and notes.
        names: The columns of the file.
        options: Those that were asked for.
        summaries: Whether each text has its summary.

    Raises:
        DocumentError: There is none of a kind, or two of one name.
    """
    text = _choose(path, names, "text", options.text_column)
    if not summaries:
        return (text,)
    return (text, _choose(path, names, "summary", options.summary_column))


def _choose(path: Path, names: Sequence[str], kind: str, asked: str | None) -> str:
    usual = USUAL_NAMES[kind]
    found = [name for name in ([asked] if asked else usual) if name in names]
    if not found:
        listed = ", ".join(map(repr, names)) or "nothing"
        if asked:
            raise DocumentError(
                f"{path} has no column {asked!r}, it has {listed}: name one of them"
            )
        raise DocumentError(
            f"{path} has no column named {', '.join(usual[:-1])} or {usual[-1]}, it has {listed}: "
            f"say which one holds the {kind} with --{kind}-column NAME"
        )
    taken, *others = found
    if (count := list(names).count(taken)) > 1:
        raise DocumentError(f"{path} has {count} columns named {taken!r}: rename all but one")
    if others:
        note(
            f"{path}: the {kind} is read from {taken!r}, though there is "
            f"{' and '.join(map(repr, others))} too: --{kind}-column NAME takes another"
        )
    return taken
