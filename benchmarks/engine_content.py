"""The results of `kobart-bench engine` as headlines, plots and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.engine_feeds import NUM_BEAMS, NUM_ENTRIES, Point
from benchmarks.recording import Content
from client.perf.profile import CsvRow
from client.perf.statistics import NO_CLEAR_DIFFERENCE, Spread, percentile
from client.perf.usage import Usage
from client.report.document import Column, Headline, Plot, Row, Series, Table, Text

_KEYS = (
    Column(key="engine", title=Text("Engine", "엔진"), is_key=True),
    Column(key="batch", title=Text("Batch", "배치"), digits=0, is_key=True),
    Column(key="source", title=Text("Source", "원문"), unit="tokens", digits=0, is_key=True),
)
_TIMES = tuple(
    Column(key=key, title=Text(name, korean), unit="ms", digits=2, better="lower")
    for key, name, korean in (
        ("avg", "Average", "평균"),
        ("p50", "p50", "p50"),
        ("p95", "p95", "p95"),
        ("p99", "p99", "p99"),
    )
)
_RATE = Column(key="rate", title=Text("Samples", "샘플"), unit="per s", digits=1, better="higher")
_SERVED = (
    Column(key="transport", title=Text("Transport", "전송"), unit="%", digits=0),
    Column(key="cpu", title=Text("Server CPU", "서버 CPU"), unit="% of a core", digits=0),
    Column(key="memory", title=Text("Server memory", "서버 메모리"), unit="MB", digits=0),
    Column(key="gpu", title=Text("GPU", "GPU"), unit="%", digits=0),
)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One shape, one repeat; milliseconds."""

    avg_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, calls_ms: list[float]) -> Timing:
        """Sum up calls."""
        p50, p95, p99 = (percentile(calls_ms, percent) for percent in (50, 95, 99))
        average = sum(calls_ms) / len(calls_ms)
        return cls(avg_ms=average, p50_ms=p50, p95_ms=p95, p99_ms=p99)

    @classmethod
    def of_csv(cls, row: CsvRow) -> Timing:
        """What perf_analyzer's verbose CSV says."""
        assert row.avg_us is not None  # the CSV was asked to be verbose
        times = (row.avg_us, row.p50_us, row.p95_us, row.p99_us)
        average, p50, p95, p99 = (us / 1000 for us in times)
        return cls(avg_ms=average, p50_ms=p50, p95_ms=p95, p99_ms=p99)


@dataclass
class EngineResults:
    """Everything of one run: a list holds one value a repeat."""

    local: dict[Point, list[Timing]] = field(default_factory=dict)
    served: dict[Point, list[Timing]] = field(default_factory=dict)
    usages: dict[Point, list[Usage]] = field(default_factory=dict)

    def add_local(self, point: Point, timing: Timing) -> None:
        """Keep one measurement in this process."""
        self.local.setdefault(point, []).append(timing)

    def add_served(self, point: Point, timing: Timing, usage: Usage) -> None:
        """Keep one measurement through Triton."""
        self.served.setdefault(point, []).append(timing)
        self.usages.setdefault(point, []).append(usage)


def engine_content(results: EngineResults) -> Content | None:
    """What has been measured so far; None if nothing."""
    if not results.local:
        return None
    return Content(
        headlines=tuple(_headlines(results)),
        findings=tuple(_findings(results)),
        plots=tuple(_plots(results)),
        tables=tuple(_tables(results)),
    )


def _headlines(results: EngineResults) -> Iterator[Headline]:
    encoder = {point: each for point, each in results.local.items() if point.role == "encoder"}
    if encoder:
        best = max(1000 * p.batch_size * p.source_len / _median(t) for p, t in encoder.items())
        title = Text("Encoder, most source tokens", "인코더 최대 원문 토큰")
        yield Headline(title=title, value=f"{best:,.0f}", unit="per s")
    steps = {point: each for point, each in results.local.items() if point.role == "decoder"}
    if steps:
        smallest = min(steps)
        title = Text(
            f"One decode step, batch {smallest.batch_size}",
            f"디코드 한 단계, 배치 {smallest.batch_size}",
        )
        yield Headline(title=title, value=f"{_median(steps[smallest]):.2f}", unit="ms")
    if results.served:
        shares = [share.median for share in _told_transport(results).values()]
        title = Text("Transport's share, least and most", "전송 비중, 최소와 최대")
        if shares:
            yield Headline(title=title, value=f"{min(shares):.0f} to {max(shares):.0f}", unit="%")
        else:
            yield Headline(title=title, value=NO_CLEAR_DIFFERENCE)


def _findings(results: EngineResults) -> Iterator[Text]:
    if results.served:
        yield Text(
            "Transport is what a call through Triton takes beyond the engine itself: gRPC, shared "
            "memory, and the python backend's copies. The front model pays none of it: it opens "
            "the engines in its own process.",
            "전송은 Triton을 거치는 호출에서 엔진 외에 드는 시간입니다(gRPC, 공유 메모리, python "
            "백엔드의 복사). 프런트 모델은 엔진을 자기 프로세스에서 열므로 이 비용이 없습니다.",
        )
    num_served = len(results.served)
    if num_untold := num_served - len(_told_transport(results)):
        yield Text(
            f"Transport's share cannot be told for {num_untold} of {num_served} shapes: the "
            "repeats differ by more than transport takes.",
            f"형상 {num_served}개 중 {num_untold}개는 반복 측정의 차이가 전송에 드는 시간보다 커서 "
            "전송 비중을 판단할 수 없습니다.",
        )


def _tables(results: EngineResults) -> Iterator[Table]:
    yield Table(
        name="in-process",
        title=Text("In process", "프로세스 안"),
        columns=(*_KEYS, *_TIMES, _RATE),
        rows=tuple(_row(point, timings) for point, timings in sorted(results.local.items())),
        note=Text(
            f"A decoder's sample is one step of one request: {NUM_BEAMS} beams over "
            f"{NUM_ENTRIES} cache entries.",
            f"디코더의 샘플은 요청 하나의 한 단계입니다(빔 {NUM_BEAMS}개, 캐시 {NUM_ENTRIES}칸).",
        ),
    )
    if not results.served:
        return
    rows = [
        {**_row(point, timings), **_usage(results, point)}
        for point, timings in sorted(results.served.items())
    ]
    used = {key for row in rows for key, cell in row.items() if cell is not None}
    yield Table(
        name="served",
        title=Text("Through perf_analyzer and Triton", "perf_analyzer와 Triton을 거쳐"),
        columns=tuple(c for c in (*_KEYS, *_TIMES, _RATE, *_SERVED) if c.key in used),
        rows=tuple(rows),
    )


def _plots(results: EngineResults) -> Iterator[Plot]:
    for role, korean, unit in (
        ("encoder", "인코더", "source tokens/s"),
        ("decoder", "디코더", "generated tokens/s, one a request"),
    ):
        points = [point for point in results.local if point.role == role]
        if points:
            yield Plot(
                name=f"{role}-tokens",
                title=Text(
                    f"{role.capitalize()}: tokens/s by batch and length",
                    f"{korean}: 배치와 길이에 따른 초당 토큰",
                ),
                kind="line",
                x_label="batch",
                y_label=unit,
                series=tuple(_lines(results, points)),
                log_x=True,
            )
    if told := _told_transport(results):
        yield _transport_plot(told)


def _lines(results: EngineResults, points: list[Point]) -> Iterator[Series]:
    """One line a source length."""
    for source_len in sorted({point.source_len for point in points}):
        group = sorted(point for point in points if point.source_len == source_len)
        spreads = [_tokens_per_s(point, results.local[point]) for point in group]
        yield Series(
            label=f"source {source_len}",
            x=tuple(point.batch_size for point in group),
            y=tuple(spread.median for spread in spreads),
            low=tuple(spread.low for spread in spreads),
            high=tuple(spread.high for spread in spreads),
        )


def _transport_plot(told: dict[Point, Spread]) -> Plot:
    longest = max(point.source_len for point in told)
    points = sorted(point for point in told if point.source_len == longest)
    batches = sorted({point.batch_size for point in points})
    return Plot(
        name="transport",
        title=Text(f"Transport's share, source {longest}", f"전송 비중, 원문 {longest} 토큰"),
        kind="bars",
        x_label="batch",
        y_label="% of a call",
        series=tuple(
            Series(
                label=role,
                x=tuple(batches.index(p.batch_size) for p in points if p.role == role),
                y=tuple(told[p].median for p in points if p.role == role),
            )
            for role in sorted({point.role for point in points})
        ),
        ticks=tuple(map(str, batches)),
    )


def _row(point: Point, timings: list[Timing]) -> Row:
    return {
        "engine": point.role,
        "batch": point.batch_size,
        "source": point.source_len,
        "avg": _spread(timings, lambda t: t.avg_ms),
        "p50": _spread(timings, lambda t: t.p50_ms),
        "p95": _spread(timings, lambda t: t.p95_ms),
        "p99": _spread(timings, lambda t: t.p99_ms),
        "rate": _spread(timings, lambda t: 1000 * point.batch_size / t.avg_ms),
    }


def _usage(results: EngineResults, point: Point) -> Row:
    usages = results.usages[point]
    gpu = [usage.gpu_percent for usage in usages if usage.gpu_percent is not None]
    return {
        "transport": _transport(results, point) or NO_CLEAR_DIFFERENCE,
        "cpu": Spread.of([usage.cpu_percent for usage in usages]),
        "memory": Spread.of([usage.peak_memory_mb for usage in usages]),
        "gpu": Spread.of(gpu) if gpu else None,
    }


def _transport(results: EngineResults, point: Point) -> Spread | None:
    """Percent of a served call that is not the engine, repeat by repeat, of the medians.

    None where it cannot be told: a served call was not slower in every repeat than each one in
    process, so the machine's noise exceeds what is asked for.
    """
    pairs = list(zip(results.local[point], results.served[point], strict=False))
    if max(ours.p50_ms for ours, _ in pairs) >= min(theirs.p50_ms for _, theirs in pairs):
        return None
    return Spread.of([100 * (1 - ours.p50_ms / theirs.p50_ms) for ours, theirs in pairs])


def _told_transport(results: EngineResults) -> dict[Point, Spread]:
    """Transport's share of every shape for which it can be told."""
    shares = {point: _transport(results, point) for point in results.served}
    return {point: share for point, share in shares.items() if share is not None}


def _tokens_per_s(point: Point, timings: list[Timing]) -> Spread:
    tokens = point.batch_size * (point.source_len if point.role == "encoder" else 1)
    return _spread(timings, lambda t: 1000 * tokens / t.avg_ms)


def _spread(timings: list[Timing], value: Callable[[Timing], float]) -> Spread:
    return Spread.of([value(timing) for timing in timings])


def _median(timings: list[Timing]) -> float:
    return _spread(timings, lambda timing: timing.avg_ms).median
