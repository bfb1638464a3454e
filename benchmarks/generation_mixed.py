"""Section `mixed`: many different requests, always some in flight; who batches them best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from benchmarks.contestants import Contestant, CTranslate2Contestant, runners
from benchmarks.generation_results import Bar, Section
from benchmarks.generation_setup import OURS, Setup, System, settings_of
from benchmarks.traffic import Call
from benchmarks.traffic_answers import (
    Replay,
    continuous,
    ctranslate2_threads,
    ctranslate2_waves,
    static_batches,
)
from client.perf.statistics import Spread

NUM_TRIAL_WAVES = 2  # what a peer's ways are tried on
STATIC_LIMIT, PEER_LIMIT = 1.5, 2.0
LOOP = f"{OURS} int8"
STATIC = f"{OURS} int8, static batches"
PEER = "CTranslate2"  # in its best precision


@dataclass(frozen=True)
class Way:
    """One way to answer the traffic."""

    name: str
    contestant: Contestant
    answer: Callable[..., Replay]  # takes the system, the calls and how many are in flight


@dataclass
class Answering:
    """One system at its best way."""

    name: str
    way: Way
    trials: dict[str, float]
    replays: list[Replay] = field(default_factory=list)

    @classmethod
    def best_of(cls, name: str, tried: Mapping[Way, Replay]) -> Answering:
        """The fastest way of those that were tried; these runs are not counted."""
        best = max(tried, key=lambda way: tried[way].tokens_per_s)
        return cls(name, best, {way.name: replay.tokens_per_s for way, replay in tried.items()})

    @property
    def rate(self) -> Spread:
        """Tokens a second."""
        return Spread.of([replay.tokens_per_s for replay in self.replays])

    def row(self) -> dict[str, Any]:
        """As it is kept."""
        latencies = {
            f"latency_p{percent}_s": asdict(Spread.of([r.latency_s(percent) for r in self.replays]))
            for percent in (50, 95)
        }
        return {
            "system": self.name,
            "setting": self.way.name,
            "tokens_per_s": asdict(self.rate),
            "best": max(replay.tokens_per_s for replay in self.replays),
            "num_tokens": self.replays[0].num_tokens,
            **latencies,
            "trials": self.trials,
        }


def measure(setup: Setup) -> Section:
    """Answer the same traffic in every way, in turns."""
    traffic = setup.sizes.traffic
    calls = traffic.calls(setup.sizes.cases[0].num_ids)
    ways = _ways(setup)
    contestants = {way.contestant.name: way.contestant for some in ways.values() for way in some}
    with runners(list(contestants.values())) as started:
        processes = {runner.name: runner for runner in started}

        def run(way: Way, calls: Sequence[Call]) -> Replay:
            work = partial(way.answer, calls=calls, in_flight=traffic.in_flight)
            return processes[way.contestant.name].run(work, setup.sizes.settle_s)

        trial = calls[: NUM_TRIAL_WAVES * traffic.in_flight]
        found = [
            Answering.best_of(name, {way: run(way, trial) for way in some})
            for name, some in ways.items()
        ]
        for _ in range(setup.repeats):
            for each in found:
                each.replays.append(run(each.way, calls))
    return Section(
        rows=[each.row() for each in found],
        bars=_bars({each.name: each.rate for each in found}),
        settings=settings_of(setup, {"traffic": asdict(traffic)}),
    )


def _ways(setup: Setup) -> dict[str, list[Way]]:
    """System -> all of its ways, of which the best runs whole."""
    build = setup.build("int8")
    return {
        LOOP: [Way("continuous batching", build, continuous)],
        STATIC: [Way("waves, a batch for each beam width", build, static_batches)],
        PEER: [way for system in setup.ctranslate2() for way in _peer_ways(system, setup)],
    }


def _peer_ways(system: System, setup: Setup) -> list[Way]:
    in_flight = setup.sizes.traffic.in_flight
    ways = []
    for contestant in system.contestants:
        assert isinstance(contestant, CTranslate2Contestant)
        workers = contestant.inter_threads
        size = None if workers == 1 else max(1, in_flight // (2 * workers))
        batches = "whole" if size is None else f"in batches of {size}"
        waves = partial(ctranslate2_waves, max_batch_size=size)
        workers_text = f"{workers} worker{'s' * (workers > 1)}"
        ways.append(Way(f"{system.precision}, waves {batches}, {workers_text}", contestant, waves))
    most = max(system.contestants, key=lambda each: getattr(each, "inter_threads", 1))
    threads = f"{system.precision}, {in_flight} threads with a call each, {workers_text}"
    return [*ways, Way(threads, most, ctranslate2_threads)]


def _bars(rates: Mapping[str, Spread]) -> list[Bar]:
    return [
        Bar.of_ratio("mixed: loop / static batches", rates[LOOP], rates[STATIC], STATIC_LIMIT),
        Bar.of_ratio(f"mixed: loop / {PEER}", rates[LOOP], rates[PEER], PEER_LIMIT),
    ]
