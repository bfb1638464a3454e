"""Bytes to text: UTF-8 or what was asked for, else an error that names an encoding that fits."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from kobart_runtime.errors import DocumentError

UTF_8 = "utf-8"
BYTE_ORDER_MARK = "\ufeff"
_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 4096
_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, UTF_8),
)
OpenBytes = Callable[[], BinaryIO]


def check_encoding(encoding: str) -> None:
    """Refuse a name that Python has no text encoding for.

    Raises:
        DocumentError: Names the usual ones.
    """
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=encoding).close()
    except LookupError as error:
        raise DocumentError(
            f"encoding {encoding!r} is unknown: usual ones are utf-8, cp949 and utf-16"
        ) from error


def decode(data: bytes, name: str, encoding: str | None) -> str:
    """The text of a file that is in memory, without its byte order mark.

    Args:
        data: All of it.
        name: For the error.
        encoding: None: UTF-8.

    Raises:
        DocumentError: The bytes are not of that encoding; names one that fits.
    """
    try:
        _refuse_zeros(data[:_HEAD_BYTES], encoding)
        return data.decode(encoding or UTF_8).removeprefix(BYTE_ORDER_MARK)
    except UnicodeError as error:
        raise _refusal(lambda: io.BytesIO(data), name, encoding) from error


@contextmanager
def open_text(path: Path, encoding: str | None, newline: str | None = None) -> Iterator[TextIO]:
    """A file of text, read as the block goes along, behind its byte order mark.

    Args:
        path: A regular file: the whole of it is read again to explain an error.
        encoding: None: UTF-8.
        newline: As of `open`; "" leaves line ends as they are.

    Raises:
        DocumentError: The file cannot be read, or its bytes are not of that encoding.
    """
    try:
        if not path.is_file() and path.exists() and not path.is_dir():
            raise DocumentError(f"{path} is not a regular file: write its content to one first")
        with (
            path.open("rb") as binary,
            io.TextIOWrapper(binary, encoding=encoding or UTF_8, newline=newline) as file,
        ):
            _refuse_zeros(binary.peek(_HEAD_BYTES)[:_HEAD_BYTES], encoding)
            if file.read(1) != BYTE_ORDER_MARK:
                file.seek(0)
            yield file
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeError as error:
        raise _refusal(lambda: path.open("rb"), str(path), encoding) from error


def unreadable(path: Path | str, error: OSError) -> DocumentError:
    """The error of a file that the system does not let us read."""
    return DocumentError(f"{path} cannot be read: {error.strerror or error}")


def _refuse_zeros(head: bytes, encoding: str | None) -> None:
    """UTF-16 of Latin letters without a mark is valid UTF-8: a zero byte beside each letter.

    Raises:
        UnicodeError: The first bytes look like that.
    """
    if encoding is None and 4 * head.count(0) > len(head):
        raise UnicodeError("every other byte is zero")


def _refusal(open_bytes: OpenBytes, name: str, encoding: str | None) -> DocumentError:
    place = _first_misfit(open_bytes, encoding or UTF_8)
    fitting = _fitting_encoding(open_bytes, tried=encoding or UTF_8)
    if fitting is None:
        remedy = "it is no text of a known encoding either: save it as UTF-8"
    elif fitting == UTF_8:
        remedy = "it is UTF-8: leave --encoding out"
    else:
        remedy = f"it can be read with --encoding {fitting}"
    asked = "UTF-8" if encoding is None else encoding
    return DocumentError(f"{name} is not {asked} {place}: {remedy}")


def _first_misfit(open_bytes: OpenBytes, encoding: str) -> str:
    """Where decoding fails; bytes from 0, lines from 1."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    line, start, buffered = 1, 0, 0  # of the bytes that the decoder gets next
    with open_bytes() as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            try:
                line += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                good = bytes(error.object[: error.start]).decode(encoding, "replace")
                position = start - buffered + error.start
                return f"(byte {position}) on line {line + good.count(chr(10))}"
            except UnicodeError as error:  # UTF-16 that does not say which byte comes first
                return f"({error})"
            if not chunk:
                return "(every other byte is zero)"
            start += len(chunk)
            buffered = len(decoder.getstate()[0])


def _fitting_encoding(open_bytes: OpenBytes, tried: str) -> str | None:
    """An encoding in which all of the bytes are text."""
    with open_bytes() as file:
        head = file.read(_HEAD_BYTES)
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked:
        candidates = [marked]
    elif b"\0" in head:  # the upper byte of a space or a line end, which no other encoding has
        high_first = head[::2].count(0) > head[1::2].count(0)
        candidates = ["utf-16-be" if high_first else "utf-16-le"]
    else:
        candidates = [UTF_8, "cp949"]
    same = codecs.lookup(tried).name
    return next(
        (
            name
            for name in candidates
            if codecs.lookup(name).name != same and _is_text_of(open_bytes, name)
        ),
        None,
    )


def _is_text_of(open_bytes: OpenBytes, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        with open_bytes() as file:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True
