"""Documents with their reference summaries: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kobart_runtime.errors import InvalidArgumentError

_FORM = '{"dialogue": "...", "summary": "..."}'


@dataclass(frozen=True)
class Example:
    """One document and what its summary should say."""

    dialogue: str
    summary: str


def read_examples(path: Path) -> list[Example]:
    """Read a file.

    Raises:
        InvalidArgumentError: It cannot be read, holds nothing, or a line, which is named by its
            number, is not of the right form.
    """
    examples = list(_examples(path))
    if not examples:
        raise InvalidArgumentError(f"{path} holds no documents: give it some, {_FORM} a line")
    return examples


def _examples(path: Path) -> Iterator[Example]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _example(line, f"{path}, line {number}")
    except OSError as error:
        raise InvalidArgumentError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path} is not UTF-8 (byte {error.start})") from error


def _example(line: str, where: str) -> Example:
    try:
        fields = json.loads(line)
        example = Example(fields["dialogue"], fields["summary"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(f"{where} must be {_FORM}, got {_short(line)}") from error
    for name, text in vars(example).items():
        if not isinstance(text, str) or not text.strip():
            raise InvalidArgumentError(f"{where}: {name} must be a text, got {text!r}")
    return example


def _short(line: str) -> str:
    text = line.strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
