from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.perf.options import (
    Concurrency,
    Intervals,
    PerfOptions,
    RequestCount,
    RequestRate,
    StableWindows,
)
from client.perf_analyzer import PerfAnalyzerError, find_perf_analyzer
from kobart_runtime.errors import ConfigError
from tests.patience import PATIENCE_S

PLAIN = PerfOptions(
    model="kobart",
    url="127.0.0.1:1",
    load=Concurrency(4),
    window=RequestCount(40),
    input_data=Path("in.json"),
    csv=Path("out.csv"),
)
EVERY_LOAD = (
    Concurrency(1, 8, 2),
    RequestRate(2.5, distribution="constant"),
    RequestRate(0.4),
    RequestRate(1, 4, 0.5),
    Intervals(Path("pauses")),
)
EVERY_WINDOW = (
    RequestCount(3),
    StableWindows(count=50, stability_percent=5, max_trials=4),
    StableWindows(interval_ms=2000),
)
EVERY_PAIR = [
    (load, window)
    for load in EVERY_LOAD
    for window in EVERY_WINDOW
    if not (isinstance(window, RequestCount) and getattr(load, "end", None))
]


def test_plain_command_line() -> None:
    assert " ".join(PLAIN.argv()) == (
        "-m kobart -u 127.0.0.1:1 -i grpc -f out.csv --input-data in.json "
        "--concurrency-range 4 --request-count 40"
    )


@pytest.mark.triton
@pytest.mark.parametrize(("load", "window"), EVERY_PAIR, ids=str)
def test_perf_analyzer_knows_every_option(
    load: Concurrency, window: RequestCount, tmp_path: Path
) -> None:
    """It gets as far as looking for the server, which an option that it does not know prevents."""
    pauses = tmp_path / "pauses"
    pauses.write_text("1000\n")
    data = tmp_path / "in.json"
    data.write_text('{"data": []}')
    options = replace(
        PLAIN,
        input_data=data,
        csv=tmp_path / "out.csv",
        load=Intervals(pauses) if isinstance(load, Intervals) else load,
        window=window,
        percentile=95,
        batch_size=2,
        shared_memory="system",
        headers={"triton-grpc-protocol-key": "value"},
        metrics_url="127.0.0.1:1/metrics",
        profile=tmp_path / "profile.json",
    )
    with pytest.raises(PerfAnalyzerError, match=r"(?i)connect"):
        find_perf_analyzer().run(options.argv(), timeout_s=PATIENCE_S)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Concurrency(0), "concurrency must be at least 1, got 0"),
        (lambda: Concurrency(4, 2), "must rise by a step above 0, got 4:2:1"),
        (lambda: RequestRate(0), "request rate must be at least 0.001, got 0"),
        (lambda: RequestRate(1, distribution="even"), "constant, poisson, got 'even'"),
        (lambda: RequestCount(0), "request count must be at least 1"),
        (lambda: replace(PLAIN, load=Concurrency(1, 8)), "one level of load"),
        (lambda: replace(PLAIN, percentile=100), r"1\.\.99, got 100"),
        (lambda: replace(PLAIN, shared_memory="posix"), "none, system, cuda, got 'posix'"),
        (lambda: replace(PLAIN, streaming=True, shared_memory="system"), "streamed"),
    ],
)
def test_refusals(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
