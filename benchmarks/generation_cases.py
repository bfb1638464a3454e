"""Section `cases`: batches and single sources, greedy and beam search, against every peer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks.contestants import Runner, runners
from benchmarks.decoding import Case, identical_share
from benchmarks.generation_results import Bar, Section
from benchmarks.generation_setup import Option, Setup, System, contestants_of, settings_of
from client.perf.statistics import Spread, ratio
from kobart_runtime.settings import GenerationSettings

TOO_SLOW_S = 60.0  # a system that takes longer for one run gets no further one
WARM_UP_TOKENS = 2
LIMITS = (2.0, 2.0, 2.0, 1.8)  # of int8 over the best peer, case by case


@dataclass(frozen=True)
class Timed:
    """One run."""

    seconds: float
    ids: list[list[int]]


@dataclass
class Measured:
    """One system on one case."""

    system: System
    option: Option
    trial: Timed
    trials: dict[str, float]  # tokens a second of every option, in one run
    rates: list[float] = field(default_factory=list)  # tokens a second of each counted run

    def row(self, case: Case, reference: Measured) -> dict[str, Any]:
        """As it is kept; the ids are compared with those of another system."""
        note = ""
        if self.is_too_slow:
            note = f"one run, of {self.trial.seconds:.0f} s: over the {TOO_SLOW_S:.0f} s allowed"
        return {
            "case": case.name,
            "system": self.system.name,
            "precision": self.system.precision,
            "setting": self.option.name,
            "tokens_per_s": asdict(self.rate),
            "best": max(self.rates),
            "identical_share": identical_share(self.trial.ids, reference.trial.ids),
            "trials": self.trials,
            "note": note,
        }

    @property
    def rate(self) -> Spread:
        """Tokens a second over the counted runs."""
        return Spread.of(self.rates)

    @property
    def is_too_slow(self) -> bool:
        """Whether its trial is its only run."""
        return self.trial.seconds > TOO_SLOW_S


def measure(setup: Setup) -> Section:
    """Time every system on every case, in turns."""
    systems = setup.systems()
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    with runners(contestants_of(systems)) as started:
        processes = {runner.name: runner for runner in started}
        for case, limit in zip(setup.sizes.cases, LIMITS, strict=True):
            found = measure_case(systems, processes, case, setup)
            rows += [measured.row(case, found[0]) for measured in found]
            bars += [best_ratio(case.name, found, limit)]
            rows += [_ratio_row(case, found, precision) for precision in ("fp32", "int8")]
    return Section(rows=rows, bars=bars, settings=settings_of(setup))


def measure_case(
    systems: Sequence[System], processes: Mapping[str, Runner], case: Case, setup: Setup
) -> list[Measured]:
    """Every system at its best setting, in turns; all settings are tried once before."""
    settle_s = setup.sizes.settle_s
    found = [_try_options(system, processes, case, settle_s) for system in systems]
    for measured in found:
        if measured.is_too_slow:
            measured.rates.append(case.num_tokens / measured.trial.seconds)
    for _ in range(setup.repeats):
        for measured in found:
            if not measured.is_too_slow:
                timed = _run(processes, measured.option, case, settle_s)
                measured.rates.append(case.num_tokens / timed.seconds)
    return found


def best_ratio(name: str, found: Sequence[Measured], limit: float) -> Bar:
    """This project's int8 over the fastest peer, whatever its precision."""
    ours = next(m for m in found if m.system.is_ours and m.system.precision == "int8")
    peer = fastest(found)
    return Bar.of_ratio(f"{name}: int8 / {peer.system.name}", ours.rate, peer.rate, limit)


def fastest(found: Sequence[Measured], precision: str | None = None) -> Measured:
    """The peer with the best median, of one precision or of all."""
    peers = [m for m in found if not m.system.is_ours]
    return max(
        (m for m in peers if precision in (None, m.system.precision)), key=lambda m: m.rate.median
    )


def _ratio_row(case: Case, found: Sequence[Measured], precision: str) -> dict[str, Any]:
    ours = next(m for m in found if m.system.is_ours and m.system.precision == precision)
    peer = fastest(found, precision)
    between = ratio(ours.rate, peer.rate)
    return {
        "case": case.name,
        "ratio": None if between is None else asdict(between),
        "of": ours.system.name,
        "to": peer.system.name,
    }


def _try_options(
    system: System, processes: Mapping[str, Runner], case: Case, settle_s: float
) -> Measured:
    tried: dict[Option, Timed] = {}
    for option in system.options(case.num_sources):
        if not any(timed.seconds > TOO_SLOW_S for timed in tried.values()):
            _run(processes, option, case, settle_s, num_new_tokens=WARM_UP_TOKENS)
            tried[option] = _run(processes, option, case)
    best = min(tried, key=lambda option: tried[option].seconds)
    rates = {option.name: case.num_tokens / timed.seconds for option, timed in tried.items()}
    return Measured(system, best, tried[best], rates)


def _run(
    processes: Mapping[str, Runner],
    option: Option,
    case: Case,
    settle_s: float = 0.0,
    num_new_tokens: int | None = None,
) -> Timed:
    settings = case.settings
    if num_new_tokens is not None:
        settings = Case(num_beams=case.num_beams, num_new_tokens=num_new_tokens).settings
    work = partial(
        timed_generate,
        sources=case.sources(),
        settings=settings,
        max_batch_size=option.max_batch_size,
    )
    return processes[option.contestant.name].run(work, settle_s)


def timed_generate(
    system: Any,
    sources: Sequence[np.ndarray],
    settings: GenerationSettings,
    max_batch_size: int | None,
) -> Timed:
    """One run, in the system's own process."""
    cut = {} if max_batch_size is None else {"max_batch_size": max_batch_size}
    started = time.perf_counter()
    ids = system.generate(sources, settings, **cut)
    return Timed(time.perf_counter() - started, ids)
