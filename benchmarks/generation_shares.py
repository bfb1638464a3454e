"""Section `shares`: where the time goes, from the encoder to the Python between two steps."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.call_log import ENCODE, STEP, CallLog, LoggedContestant
from benchmarks.contestants import runners
from benchmarks.decoding import Case
from benchmarks.engine_feeds import Point, front_decoder_feeds, output_names
from benchmarks.generation_results import Bar, Section
from benchmarks.generation_setup import Setup, settings_of
from benchmarks.operators import profile_engine
from benchmarks.our_runtime import OurRuntime
from client.perf.statistics import Spread

LIMIT = 0.1  # of a decode step
NUM_CALLS = 10  # of the profiled decoder
PARTS = {  # the profile's groups -> what the table tells apart; all others are "other"
    "attention projections": "attention",
    "attention products": "attention",
    "feed-forward": "feed-forward",
    "language-model head": "head",
}
NAMES = ("encode", "attention", "feed-forward", "head", "other", "host")


def measure(setup: Setup) -> Section:
    """Every case by both of our precisions."""
    rows, bars = [], []
    contestants = [
        LoggedContestant(name=precision, path=setup.build(precision).path)
        for precision in ("int8", "fp32")
    ]
    widest = max(setup.sizes.cases, key=lambda case: case.num_sources * case.num_beams)
    with runners(contestants) as started:
        for case in setup.sizes.cases:
            for process in started:
                row = process.run(partial(shares_of, case=case, repeats=setup.repeats))
                rows.append({"case": case.name, "precision": process.name, **row})
                if case == widest and process.name == "int8":
                    host = Spread(**row["host_of_step"])
                    name = f"shares: selection and Python of a step, {case.name}, int8"
                    bars.append(Bar.of_spread(name, host, LIMIT))
    return Section(rows=rows, bars=bars, settings=settings_of(setup))


def shares_of(opened: tuple[OurRuntime, CallLog], case: Case, repeats: int) -> dict[str, Any]:
    """Shares of the loop's time, in the build's own process.

    Returns:
        Share of each part, milliseconds of a step, and what the host takes of one.
    """
    runtime, log = opened
    by_group = _profile(runtime, case)
    runtime.generate(case.sources(), case.settings)  # not counted
    found = []
    for _ in range(repeats):
        log.watch_for(0)
        runtime.generate(case.sources(), case.settings)
        found.append((split(log.calls, by_group), *step_ms(log.calls)))
    return {
        "shares": {name: statistics.median(each[0][name] for each in found) for name in NAMES},
        "engine_ms": asdict(Spread.of([engine for _, engine, _ in found])),
        "host_ms": asdict(Spread.of([host for _, _, host in found])),
        "host_of_step": asdict(Spread.of([host / (engine + host) for _, engine, host in found])),
    }


def split(
    calls: Sequence[tuple[str, float, float]], by_group: Mapping[str, float]
) -> dict[str, float]:
    """Shares of the time from the first call's beginning to the last one's end; their sum is 1.

    Args:
        calls: Name, beginning and end of each, in order; they do not overlap.
        by_group: A step's operators by group, in any unit: scaled to the measured steps.
    """
    total = calls[-1][2] - calls[0][1]
    seconds = {name: sum(e - s for kind, s, e in calls if kind == name) for name in (ENCODE, STEP)}
    found = dict.fromkeys(NAMES, 0.0)
    found["encode"] = seconds[ENCODE] / total
    found["host"] = 1 - (seconds[ENCODE] + seconds[STEP]) / total
    profiled = sum(by_group.values())
    for group, us in by_group.items():
        found[PARTS.get(group, "other")] += us / profiled * seconds[STEP] / total
    return found


def step_ms(calls: Sequence[tuple[str, float, float]]) -> tuple[float, float]:
    """Medians of a decode step's engine call, and of the host's time until the next."""
    engine = [end - start for name, start, end in calls if name == STEP]
    pairs = pairwise(calls)
    host = [
        after[1] - before[2] for before, after in pairs if before[0] == STEP and after[0] == STEP
    ]
    return 1000 * statistics.median(engine), 1000 * statistics.median(host)


def _profile(runtime: OurRuntime, case: Case) -> dict[str, float]:
    """Microseconds of a decode step of all sources, by group of operators."""
    config = runtime.config
    point = Point("decoder", case.num_sources, case.source_len, case.num_beams)
    ids = case.sources()[0].tolist()
    feeds = front_decoder_feeds(ids, point, config, runtime.folder)
    names = output_names("decoder", config)
    with tempfile.TemporaryDirectory() as folder:
        path = runtime.folder / config.engines.files[1]
        return profile_engine(path, names, feeds, Path(folder), NUM_CALLS).by_group
