"""One request on its way through the generation loop."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from kobart_runtime.errors import KobartError
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings

_numbers = itertools.count()


class Listener(Protocol):
    """Told what becomes of a request, on the loop's thread: it must not block."""

    def on_tokens(self, ids: Sequence[int]) -> None:
        """More tokens that every possible result begins with; only if `stream` was asked for."""

    def on_finished(self, generated: Generated) -> None:
        """The result; the last call."""

    def on_failed(self, error: KobartError) -> None:
        """There will be no result; the last call."""


@dataclass(eq=False)
class Request:
    """A tokenized source and how to summarise it.

    Any thread may set `abort`; the loop looks at it between steps and then fails the request
    with that error.
    """

    input_ids: np.ndarray  # int32[S]
    settings: GenerationSettings
    listener: Listener
    stream: bool = False
    timeout_s: float = float("inf")  # from arrival to the last response
    abort: KobartError | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    arrived_s: float = field(default_factory=time.monotonic)
    reported: list[int] = field(default_factory=list)  # tokens that on_tokens has told of
    has_begun: bool = False  # its first token was chosen, perhaps in an earlier attempt
    alone: bool = False  # a batch that it was in failed: from now on it has no company

    @property
    def source_len(self) -> int:
        """S, source tokens."""
        return len(self.input_ids)

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return self.arrived_s + self.timeout_s - time.monotonic()
