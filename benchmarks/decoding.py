"""One case of decoding, and what systems in this process make of it when they take turns.

What is compared takes turns, so that a slow moment of the machine hits all of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kobart_runtime.settings import GenerationSettings

FIRST_TEXT_ID = 107  # below lie control tokens


class System(Protocol):
    """One contestant."""

    name: str

    def generate(
        self, sources: Sequence[np.ndarray], settings: GenerationSettings
    ) -> list[list[int]]:
        """Generated ids of each source: decoder start excluded, eos included.

        Args:
            sources: int32[S] each, without padding.
            settings: The same for all of them.
        """


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    num_beams: int
    num_sources: int = 8
    source_len: int = 512
    num_new_tokens: int = 64
    num_ids: int = 5000  # sources are drawn from the ids below; at most the vocabulary

    @property
    def name(self) -> str:
        """As in the table."""
        search = "greedy" if self.num_beams == 1 else f"beam {self.num_beams}"
        return f"{search}, {self.num_sources} x {self.source_len}, {self.num_new_tokens} new"

    @property
    def num_tokens(self) -> int:
        """Generated for all sources, beams counted once."""
        return self.num_sources * self.num_new_tokens

    def sources(self) -> list[np.ndarray]:
        """Random ids int32[S], the same at every call."""
        rng = np.random.default_rng(0)
        shape = (self.num_sources, self.source_len)
        return list(rng.integers(FIRST_TEXT_ID, self.num_ids, shape, dtype=np.int32))

    @property
    def settings(self) -> GenerationSettings:
        """See `exact_length`."""
        return exact_length(self.num_beams, self.num_new_tokens)


def exact_length(num_beams: int, num_new_tokens: int) -> GenerationSettings:
    """No rule that any side would spend time on, and no early end."""
    return GenerationSettings(
        num_beams=num_beams,
        max_new_tokens=num_new_tokens,
        min_new_tokens=num_new_tokens,
        no_repeat_ngram_size=0,
    )


def identical_share(ids: Sequence[Sequence[int]], reference: Sequence[Sequence[int]]) -> float:
    """Of generated ids, one by one; all have the same number."""
    return float(np.mean(np.array(ids) == np.array(reference)))


@dataclass(frozen=True)
class Measurement:
    """Tokens per second of one system on one case, beams counted once."""

    case: str
    system: str
    best: float
    median: float
    identical_share: float  # of generated ids, against the first system


def measure(systems: Sequence[System], case: Case, repeats: int) -> list[Measurement]:
    """Time all systems on one case, in turns, after one run of each that is not counted."""
    sources = case.sources()
    outputs = [system.generate(sources, case.settings) for system in systems]
    seconds: list[list[float]] = [[] for _ in systems]
    for _ in range(repeats):
        for system, taken in zip(systems, seconds, strict=True):
            started = time.perf_counter()
            system.generate(sources, case.settings)
            taken.append(time.perf_counter() - started)
    return [
        Measurement(
            case=case.name,
            system=system.name,
            best=case.num_tokens / min(taken),
            median=case.num_tokens / statistics.median(taken),
            identical_share=identical_share(output, outputs[0]),
        )
        for system, taken, output in zip(systems, seconds, outputs, strict=True)
    ]


def table(measurements: Sequence[Measurement]) -> str:
    """Markdown; the ratio is to the first system of each case, of the medians."""
    lines = [
        "| case | system | tokens/s, best | tokens/s, median | ratio | ids as first |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    first: dict[str, Measurement] = {}
    for m in measurements:
        base = first.setdefault(m.case, m)
        lines.append(
            f"| {m.case} | {m.system} | {m.best:.1f} | {m.median:.1f} | "
            f"{m.median / base.median:.2f} | {m.identical_share:.1%} |"
        )
    return "\n".join(lines)
