"""Section `arrival`: a short request that arrives while long ones are being decoded."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.call_log import ENCODE, STEP, CallLog, LoggedContestant
from benchmarks.contestants import runners
from benchmarks.decoding import Case
from benchmarks.generation_results import Bar, Section
from benchmarks.generation_setup import Setup, settings_of
from benchmarks.generation_sizes import ArrivalSizes
from benchmarks.our_runtime import OurRuntime
from client.perf.statistics import Spread
from kobart_runtime.errors import EngineError, KobartError
from kobart_runtime.request import Request
from kobart_runtime.search import Generated

STEPS_LIMIT, TIME_LIMIT = 2.0, 0.35
_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One repeat."""

    steps_to_first_token: float  # without its own encode, in decode steps of the long batch
    step_ms: float
    encode_ms: float
    first_token_ms: float
    total_ms: float
    static_ms: float  # the long batch's remaining time, and then its own alone

    @property
    def of_static(self) -> float:
        """Its time, of what static batching gives it."""
        return self.total_ms / self.static_ms


def measure(setup: Setup) -> Section:
    """Have the short request arrive at several moments within a step, one a repeat."""
    rows, bars = [], []
    for precision in ("int8", "fp32"):
        contestant = LoggedContestant(name=precision, path=setup.build(precision).path)
        with runners([contestant]) as (process,):
            process.run(partial(arrive, sizes=setup.sizes.arrival, fraction=0.0))  # not counted
            found = [
                process.run(
                    partial(arrive, sizes=setup.sizes.arrival, fraction=(k + 0.5) / setup.repeats)
                )
                for k in range(setup.repeats)
            ]
        steps = Spread.of([each.steps_to_first_token for each in found])
        share = Spread.of([each.of_static for each in found])
        rows.append(_row(precision, found))
        bars += [
            Bar.of_spread(f"arrival, {precision}: steps to the first token", steps, STEPS_LIMIT),
            Bar.of_spread(f"arrival, {precision}: time / static batching", share, TIME_LIMIT),
        ]
    return Section(rows=rows, bars=bars, settings=settings_of(setup, asdict(setup.sizes.arrival)))


def _row(precision: str, found: Sequence[Arrival]) -> dict[str, Any]:
    spreads = {
        key: asdict(Spread.of([getattr(each, key) for each in found]))
        for key in [*Arrival.__dataclass_fields__, "of_static"]
    }
    return {"precision": precision, **spreads}


class _Times:
    """A listener that notes when its request's first token came, and its last."""

    def __init__(self) -> None:
        self.first = self.last = 0.0
        self._error: KobartError | None = None
        self._ended = threading.Event()

    def on_tokens(self, ids: Sequence[int]) -> None:
        self.first = self.first or time.perf_counter()

    def on_finished(self, generated: Generated) -> None:
        self.last = time.perf_counter()
        self._ended.set()

    def on_failed(self, error: KobartError) -> None:
        self._error = error
        self._ended.set()

    def wait(self) -> None:
        if not self._ended.wait(_LIMIT_S):
            raise EngineError(f"a request has not ended within {_LIMIT_S:.0f} s")
        if self._error is not None:
            raise self._error


def arrive(opened: tuple[OurRuntime, CallLog], sizes: ArrivalSizes, fraction: float) -> Arrival:
    """One repeat: the long requests alone, the short one alone, and both.

    Args:
        opened: By `LoggedContestant`.
        sizes: Of both.
        fraction: Of the step at which the short request arrives, that has then passed.
    """
    runtime, log = opened
    alone_ms = 1000 * _alone(runtime, sizes.short)
    arrived, _, long_end = _long(runtime, log, sizes, fraction, with_short=False)
    remaining_ms = 1000 * (long_end - arrived)
    arrived, short, _ = _long(runtime, log, sizes, fraction, with_short=True)
    assert short is not None
    step_s = _step_s(log, sizes)
    ((start, end), *_) = log.of(ENCODE, begun_after=arrived)
    return Arrival(
        steps_to_first_token=(short.first - arrived - (end - start)) / step_s,
        step_ms=1000 * step_s,
        encode_ms=1000 * (end - start),
        first_token_ms=1000 * (short.first - arrived),
        total_ms=1000 * (short.last - arrived),
        static_ms=remaining_ms + alone_ms,
    )


def _long(
    runtime: OurRuntime, log: CallLog, sizes: ArrivalSizes, fraction: float, *, with_short: bool
) -> tuple[float, _Times | None, float]:
    """The moment of arrival, the short request's times, and when the last long one ended."""
    log.watch_for(sizes.at_step)
    listeners = [_submit(runtime, sizes.long, source) for source in sizes.long.sources()]
    if not log.reached.wait(_LIMIT_S):
        raise EngineError(f"the long requests have not come to step {sizes.at_step}")
    time.sleep(fraction * _step_s(log, sizes))
    arrived = time.perf_counter()
    short = _submit(runtime, sizes.short, sizes.short.sources()[0]) if with_short else None
    for listener in [*listeners, *([short] if short else [])]:
        listener.wait()
    return arrived, short, max(listener.last for listener in listeners)


def _alone(runtime: OurRuntime, case: Case) -> float:
    started = time.perf_counter()
    _submit(runtime, case, case.sources()[0]).wait()
    return time.perf_counter() - started


def _submit(runtime: OurRuntime, case: Case, source: np.ndarray) -> _Times:
    times = _Times()
    runtime.submit(Request(source, case.settings, times, stream=True))
    return times


def _step_s(log: CallLog, sizes: ArrivalSizes) -> float:
    """From one step of the long batch to the next, before the short request came."""
    starts = [start for start, _ in log.of(STEP)[: sizes.at_step - 1]]
    return statistics.median(np.diff(starts[len(starts) // 2 :]))
