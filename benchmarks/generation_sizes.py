"""How much the speed benchmark measures: all of it, or just enough to see that it works."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.decoding import Case
from benchmarks.traffic import Traffic


@dataclass(frozen=True, kw_only=True)
class ArrivalSizes:
    """The long requests, the short one, and when it arrives."""

    long: Case
    short: Case
    at_step: int  # of the long requests


@dataclass(frozen=True, kw_only=True)
class GrowthSizes:
    """What is varied, one of them at a time, around one point."""

    slots: tuple[int, ...]
    source_lens: tuple[int, ...]
    beams: tuple[int, ...]
    middle: Case  # its beams are for the source lengths; slots are greedy too

    def cases(self) -> Iterator[tuple[str, int, Case]]:
        """Axis, value on it, and the case."""
        middle = self.middle
        for beams in (1, middle.num_beams):
            axis = "slots-greedy" if beams == 1 else "slots-beam"
            for slots in self.slots:
                yield axis, slots, self._case(beams, slots, middle.source_len)
        for length in self.source_lens:
            yield "source", length, self._case(middle.num_beams, middle.num_sources, length)
        for beams in self.beams:
            yield "beams", beams, self._case(beams, middle.num_sources, middle.source_len)

    def _case(self, beams: int, slots: int, source_len: int) -> Case:
        return Case(beams, slots, source_len, self.middle.num_new_tokens, self.middle.num_ids)


@dataclass(frozen=True, kw_only=True)
class LimitSizes:
    """What the machine and the engines are measured with."""

    array_mb: int  # of each of three arrays: far larger than the caches
    matrix_size: int  # of square matrices
    slots: int
    source_len: int
    num_calls: int  # of which the best counts


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    cases: tuple[Case, ...]
    traffic: Traffic
    arrival: ArrivalSizes
    growth: GrowthSizes
    limits: LimitSizes
    settle_s: float  # before each run, so that the last one's threads are asleep


FULL = Sizes(
    cases=tuple(
        Case(num_beams=beams, num_sources=sources) for beams in (1, 4) for sources in (8, 1)
    ),
    traffic=Traffic(),
    arrival=ArrivalSizes(
        long=Case(num_beams=4, num_new_tokens=128),
        short=Case(num_beams=1, num_sources=1, source_len=64, num_new_tokens=16),
        at_step=32,
    ),
    growth=GrowthSizes(
        slots=(1, 2, 4, 8, 16, 32),
        source_lens=(64, 128, 256, 512, 1024),
        beams=(1, 2, 4, 6, 8),
        middle=Case(num_beams=4, num_sources=4, source_len=256, num_new_tokens=32),
    ),
    limits=LimitSizes(array_mb=256, matrix_size=2048, slots=8, source_len=512, num_calls=10),
    settle_s=0.1,
)
QUICK = Sizes(
    cases=tuple(
        Case(beams, sources, source_len=32, num_new_tokens=4, num_ids=1000)
        for beams in (1, 4)
        for sources in (3, 1)
    ),
    traffic=Traffic(
        num_requests=8, in_flight=4, p50_len=24, p90_len=40, max_len=64, max_new_tokens=16
    ),
    arrival=ArrivalSizes(
        long=Case(num_beams=4, num_sources=4, source_len=48, num_new_tokens=24, num_ids=1000),
        short=Case(num_beams=1, num_sources=1, source_len=16, num_new_tokens=4, num_ids=1000),
        at_step=8,
    ),
    growth=GrowthSizes(
        slots=(1, 2),
        source_lens=(16, 32),
        beams=(1, 2),
        middle=Case(num_beams=2, num_sources=2, source_len=16, num_new_tokens=4, num_ids=1000),
    ),
    limits=LimitSizes(array_mb=4, matrix_size=128, slots=2, source_len=32, num_calls=3),
    settle_s=0.0,
)
