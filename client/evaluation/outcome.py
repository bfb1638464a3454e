"""One document of an evaluation: what was asked, what came back, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from client.rouge import Rouge

Splitter = Callable[[str], list[str]]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A summary, however it was made."""

    text: str
    output_ids: tuple[int, ...]  # decoder start excluded, final eos included
    num_input_tokens: int
    finish_reason: str  # "stop" or "length"
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One document."""

    index: int  # among the documents that were read of the data file, from 0
    summary: str
    reference: str
    output_ids: tuple[int, ...]
    checkpoint_ids: tuple[int, ...] | None  # PyTorch's answer, where it was asked
    num_input_tokens: int
    finish_reason: str
    truncated: bool
    rouge: dict[str, Rouge]  # by unit: "characters", "words", "morphemes"

    @classmethod
    def of(
        cls,
        index: int,
        reference: str,
        answer: Answer,
        splitters: Mapping[str, Splitter],
        checkpoint_ids: tuple[int, ...] | None,
    ) -> Outcome:
        """Score one answer."""
        rouge = {
            unit: Rouge.of(split(reference), split(answer.text))
            for unit, split in splitters.items()
        }
        return cls(
            index=index,
            summary=answer.text,
            reference=reference,
            output_ids=answer.output_ids,
            checkpoint_ids=checkpoint_ids,
            num_input_tokens=answer.num_input_tokens,
            finish_reason=answer.finish_reason,
            truncated=answer.truncated,
            rouge=rouge,
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Outcome:
        """Undo `to_json`."""
        ids = content["checkpoint_ids"]
        parts = {
            "output_ids": tuple(content["output_ids"]),
            "checkpoint_ids": None if ids is None else tuple(ids),
            "rouge": {unit: Rouge(**scores) for unit, scores in content["rouge"].items()},
        }
        return cls(**{**content, **parts})

    def to_json(self) -> dict[str, Any]:
        """As a line of documents.jsonl."""
        return asdict(self)

    @property
    def agreement(self) -> float | None:
        """Share of positions, of the longer of both, that hold PyTorch's token."""
        if self.checkpoint_ids is None:
            return None
        return agreement(self.output_ids, self.checkpoint_ids)


def agreement(ids: Sequence[Hashable], others: Sequence[Hashable]) -> float:
    """Share of positions, of the longer of both, that hold the same; 1 for two empty ones."""
    longer = max(len(ids), len(others))
    same = sum(a == b for a, b in zip(ids, others, strict=False))
    return same / longer if longer else 1.0
