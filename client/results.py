"""What a caller gets back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], object]  # gets documents done, documents in all


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One finished summary."""

    text: str
    finish_reason: str  # "stop", or "length": the limit of new tokens was reached
    num_input_tokens: int  # of the source, after truncation
    num_output_tokens: int
    truncated: bool  # the source was longer than the build's max_source_length
    output_ids: tuple[int, ...]  # decoder start excluded, final eos included


@dataclass(frozen=True, kw_only=True)
class SummaryChunk:
    """One piece of a summary that is still being written."""

    text: str  # only the new piece; joined, the pieces are the summary
    output_ids: tuple[int, ...]  # only those of this chunk
    num_output_tokens: int  # of all chunks so far
    summary: Summary | None = None  # the whole, on the last chunk alone
