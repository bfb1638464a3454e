"""The documents that a command line names."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

from kobart_runtime.errors import InvalidArgumentError

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Document:
    """One text and where it came from."""

    name: str  # the file as it was named, or "-"
    text: str


def read_documents(names: list[str]) -> list[Document]:
    """Read UTF-8 text files, and standard input for "-" or if no name is given.

    A byte order mark and the line end that closes a file are not part of the text.

    Raises:
        InvalidArgumentError: A file cannot be read or is not UTF-8.
    """
    return [Document(name, _read(name).rstrip("\n")) for name in names or [STANDARD_INPUT]]


def _read(name: str) -> str:
    try:
        with _open(name) as file:
            return file.read()
    except OSError as error:
        raise InvalidArgumentError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(
            f"{name} is not UTF-8 (byte {error.start}): convert it first, "
            "for example with iconv -f cp949 -t utf-8"
        ) from error


def _open(name: str) -> io.TextIOWrapper:
    if name == STANDARD_INPUT:
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig")
    return Path(name).open(encoding="utf-8-sig")
