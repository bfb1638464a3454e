"""Documents with their summaries: a file of pairs -> ids, in an order of their own.

A file is read before anything is loaded (`kobart_documents.read_pairs`) and encoded when there is
a tokenizer. Documents are sorted by their ids, so that nothing computed from them depends on the
order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kobart_documents import Pair, PairFile
from kobart_runtime.errors import DocumentError, InvalidArgumentError
from kobart_runtime.model_config import TokenIds, TokenizerConfig
from kobart_runtime.settings import Limits
from kobart_runtime.tokenizer import Tokenizer

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


def encode_pairs(file: PairFile, encoders: Encoders) -> DocumentSet:
    """The pairs of a file as ids, longest source first.

    Raises:
        DocumentError: A text has no tokens; names the line.
    """
    documents = [
        _encode(file, place, pair, encoders)
        for place, pair in zip(file.places, file.pairs, strict=True)
    ]
    documents.sort(key=lambda document: (-len(document.input_ids), document.input_ids))
    return DocumentSet(file.sha256, tuple(documents))


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


def _encode(file: PairFile, place: str, pair: Pair, encoders: Encoders) -> Document:
    try:
        source, target = encoders.source(pair.text), encoders.summary(pair.summary)
    except InvalidArgumentError as error:
        raise DocumentError(f"{file.path}, {place}: {error}") from error
    return Document(tuple(source), (encoders.decoder_start, *target))
