"""Documents with their summaries: JSON lines -> ids, in an order of their own.

A file holds one `{"dialogue": "...", "summary": "..."}` a line. Documents are sorted by their ids,
so that nothing computed from them depends on the order of the lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kobart_runtime.errors import ConfigError, KobartError
from kobart_runtime.model_config import TokenIds, TokenizerConfig, sha256_of
from kobart_runtime.settings import Limits
from kobart_runtime.tokenizer import Tokenizer

DOCUMENT_FIELDS = ("dialogue", "summary")
MAX_SUMMARY_IDS = 128  # decode steps a document is followed for

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Document:
    """One source, and the decoder's way along its reference summary."""

    input_ids: tuple[int, ...]
    decoder_input_ids: tuple[int, ...]  # decoder start, then the summary; eos comes behind the last


@dataclass(frozen=True)
class DocumentSet:
    """Documents, longest source first, and where they came from."""

    sha256: str  # of the file
    documents: tuple[Document, ...]

    def batches(self, max_documents: int, max_source_ids: int) -> Iterator[tuple[Document, ...]]:
        """Neighbours in length, as many as the limits allow but at least one.

        Args:
            max_documents: Most documents of one batch.
            max_source_ids: Most source ids of one batch, padding included.
        """
        start = 0
        while start < len(self.documents):
            longest = len(self.documents[start].input_ids)
            count = max(1, min(max_documents, max_source_ids // longest))
            yield self.documents[start : start + count]
            start += count

    def sample(self, max_documents: int) -> DocumentSet:
        """At most that many of the documents, spread evenly over all lengths."""
        step = max(1, -(-len(self.documents) // max_documents))
        return DocumentSet(self.sha256, self.documents[::step])


@dataclass(frozen=True)
class Encoders:
    """How a source and a summary become ids."""

    source: Encode
    summary: Encode  # nothing added in front or behind
    decoder_start: int

    @classmethod
    def from_tokenizer(
        cls, path: Path, config: TokenizerConfig, ids: TokenIds, limits: Limits, vocab_size: int
    ) -> Encoders:
        """The encoders of a build.

        Args:
            path: Its `tokenizer.json`.
            config: How its texts become source ids.
            ids: Its special ids.
            limits: Its greatest lengths.
            vocab_size: Rows of the model's embedding.

        Raises:
            KobartError: The tokenizer does not fit the model.
        """
        plain = TokenizerConfig(newline=config.newline)
        target_length = min(limits.max_target_length, MAX_SUMMARY_IDS)
        lengths = ((config, limits.max_source_length), (plain, target_length))
        source, summary = (
            Tokenizer(path, each, ids, max_source_length=length, vocab_size=vocab_size)
            for each, length in lengths
        )
        return cls(_as_list(source), _as_list(summary), ids.decoder_start)


def read_documents(path: Path, encoders: Encoders) -> DocumentSet:
    """Read a file of documents.

    Raises:
        ConfigError: The file is missing or empty, or a line is not of the form above.
    """
    documents = [_read(where, line, encoders) for where, line in _lines(path)]
    if not documents:
        raise ConfigError(f"{path} holds no documents: give it some, one JSON object a line")
    documents.sort(key=lambda document: (-len(document.input_ids), document.input_ids))
    return DocumentSet(sha256_of(path), tuple(documents))


def pad(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of rows of different lengths, both int32[R, S]; 0 = padding."""
    ids = np.zeros((len(rows), max(len(row) for row in rows)), np.int32)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def _as_list(tokenizer: Tokenizer) -> Encode:
    return lambda text: list(map(int, tokenizer.encode(text).input_ids))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", line
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the documents {path} cannot be read: {error}") from error


def _read(where: str, line: str, encoders: Encoders) -> Document:
    try:
        fields = json.loads(line)
        dialogue, summary = (fields[name] for name in DOCUMENT_FIELDS)
        source, target = encoders.source(dialogue), encoders.summary(summary)
    except (ValueError, KeyError, TypeError, AttributeError, KobartError) as error:
        raise ConfigError(
            f'{where} must be {{"dialogue": "...", "summary": "..."}} with texts ({error!r})'
        ) from error
    return Document(tuple(source), (encoders.decoder_start, *target))
