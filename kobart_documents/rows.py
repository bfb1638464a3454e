"""One row of a file, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Row:
    """The values of the columns that were chosen."""

    number: int  # from 1; a header is none
    place: str  # where it begins in the file: "line 3", or "row 3" where there are no lines
    values: tuple[object, ...]


# Gets the names of a file's columns, once they are known; returns those whose values are wanted.
Choose: TypeAlias = Callable[[Sequence[str]], Sequence[str]]
