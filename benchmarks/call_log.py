"""When each engine call of a build began and ended, as the generation loop made them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.contestants import BuildContestant
from benchmarks.our_runtime import OurRuntime
from benchmarks.phases import Stopwatch, TimedRunner

ENCODE, STEP = "encode", "decode step"  # as `TimedRunner` names them


class CallLog(Stopwatch):
    """Every engine call's beginning and end; an event is set when one of the steps begins."""

    def __init__(self) -> None:
        super().__init__()
        self.watch_for(0)

    def watch_for(self, step: int) -> None:
        """Forget everything; set `reached` when that decode step begins, 1 being the first."""
        self.calls: list[tuple[str, float, float]] = []
        self.reached = threading.Event()
        self._num_steps, self._awaited = 0, step

    def of(self, name: str, begun_after: float = 0.0) -> list[tuple[float, float]]:
        """Beginnings and ends of one engine's calls."""
        return [
            (start, end) for kind, start, end in self.calls if kind == name and start > begun_after
        ]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """See `Stopwatch`."""
        started = time.perf_counter()
        if name == STEP:
            self._num_steps += 1
            if self._num_steps == self._awaited:
                self.reached.set()
        yield
        self.calls.append((name, started, time.perf_counter()))


@dataclass(frozen=True, kw_only=True)
class LoggedContestant(BuildContestant):
    """A build whose engine calls are written down."""

    def open(self) -> tuple[OurRuntime, CallLog]:
        """See `benchmarks.contestants.Contestant`."""
        log = CallLog()
        return OurRuntime(self.path, wrap=lambda runner: TimedRunner(runner, log)), log
