"""The results of `kobart-bench serve` as headlines, plots and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.recording import Content
from benchmarks.serve_results import Level, Measured, ServeResults
from client.report.document import Column, Headline, Plot, Row, Series, Table, Text

NUM_BINS = 16

_LOAD = Column(key="load", title=Text("Load", "부하"), is_key=True)
_LEVEL_COLUMNS = (
    _LOAD,
    Column(
        key="requests",
        title=Text("Throughput", "처리량"),
        unit="requests/s",
        digits=2,
        better="higher",
    ),
    Column(
        key="tokens",
        title=Text("Output tokens", "출력 토큰"),
        unit="tokens/s",
        digits=0,
        better="higher",
    ),
    Column(
        key="goodput",
        title=Text("Within the target", "목표 내 처리량"),
        unit="requests/s",
        digits=2,
        better="higher",
    ),
    Column(key="p50", title=Text("Latency p50", "지연 p50"), unit="ms", digits=0, better="lower"),
    Column(key="p95", title=Text("Latency p95", "지연 p95"), unit="ms", digits=0, better="lower"),
    Column(key="p99", title=Text("Latency p99", "지연 p99"), unit="ms", digits=0, better="lower"),
    Column(key="failed", title=Text("Failed", "실패"), digits=0),
    Column(key="outliers", title=Text("Outliers", "이상값"), digits=0),
)
_STREAM_COLUMNS = (
    _LOAD,
    Column(
        key="first_p50",
        title=Text("First token p50", "첫 토큰 p50"),
        unit="ms",
        digits=0,
        better="lower",
    ),
    Column(
        key="first_p95",
        title=Text("First token p95", "첫 토큰 p95"),
        unit="ms",
        digits=0,
        better="lower",
    ),
    Column(
        key="inter", title=Text("Between tokens", "토큰 간격"), unit="ms", digits=1, better="lower"
    ),
    Column(key="cpu", title=Text("Server CPU", "서버 CPU"), unit="% of a core", digits=0),
    Column(
        key="memory",
        title=Text("Server memory", "서버 메모리"),
        unit="MB",
        digits=0,
        better="lower",
    ),
    Column(key="gpu", title=Text("GPU", "GPU"), unit="%", digits=0),
)
_PROBE_COLUMNS = (
    Column(key="rate", title=Text("Rate", "요청률"), unit="requests/s", digits=2, is_key=True),
    Column(key="p95", title=Text("Latency p95", "지연 p95"), unit="ms", digits=0),
    Column(key="answered", title=Text("Answered", "응답"), unit="requests/s", digits=2),
    Column(key="failed", title=Text("Failed", "실패"), digits=0),
    Column(key="met", title=Text("Target met", "목표 달성")),
)


def serve_content(results: ServeResults) -> Content | None:
    """What has been measured so far; None if nothing."""
    if not results.levels:
        return None
    return Content(
        headlines=tuple(_headlines(results)),
        findings=tuple(_findings(results)),
        plots=tuple(_plots(results)),
        tables=tuple(_tables(results)),
    )


def _headlines(results: ServeResults) -> Iterator[Headline]:
    target, load = f"{results.target_ms:g}", f"{results.load_per_s:g}"
    if (rate := results.highest_rate) is not None:
        title = Text(
            f"Highest load with p95 within {target} ms", f"p95 {target} ms 이내의 최대 부하"
        )
        yield Headline(title=title, value=f"{rate:.1f}", unit="requests/s")
        title = Text(f"Replicas for {load} requests/s", f"초당 {load}건에 필요한 복제본")
        yield Headline(title=title, value=str(results.num_replicas))
    title = Text("Greatest throughput", "최대 처리량")
    yield Headline(title=title, value=f"{results.greatest_throughput:.1f}", unit="requests/s")
    lightest = results.levels[min(results.levels)]
    if first := lightest.spread(lambda found: found.first_token_ms["p50"]):
        title = Text("First token on an idle server, p50", "유휴 서버의 첫 토큰, p50")
        yield Headline(title=title, value=f"{first.median:.0f}", unit="ms")


def _findings(results: ServeResults) -> Iterator[Text]:
    target = f"{results.target_ms:g}"
    rate = results.highest_rate
    if rate is not None:
        load, replicas = f"{results.load_per_s:g}", results.num_replicas
        yield Text(
            f"With Poisson arrivals, one server holds p95 within {target} ms up to {rate:.1f} "
            f"requests/s; {load} requests/s need {replicas} of them, without any in reserve.",
            f"포아송 도착에서 서버 하나는 초당 {rate:.1f}건까지 p95 {target} ms를 지킵니다. "
            f"초당 {load}건에는 예비 없이 {replicas}대가 필요합니다.",
        )
    elif results.probes:
        lowest = min(probe.rate for probe in results.probes)
        yield Text(
            f"No rate that was tried met p95 within {target} ms, down to {lowest:.2f} requests/s.",
            f"초당 {lowest:.2f}건까지 낮추어도 p95 {target} ms를 지키지 못했습니다.",
        )
    failed = sum(each.num_failed for level in results.levels.values() for each in level.repeats)
    if failed:
        yield Text(f"{failed} requests failed.", f"요청 {failed}건이 실패했습니다.")


def _plots(results: ServeResults) -> Iterator[Plot]:
    in_flight = _sorted(results, is_rate=False)
    rates = _sorted(results, is_rate=True)
    groups = [("requests in flight", in_flight), ("Poisson arrivals", rates)]
    yield Plot(
        name="latency-throughput",
        title=Text("Latency against throughput", "처리량에 따른 지연 시간"),
        kind="line",
        x_label="requests/s answered",
        y_label="latency p95, ms",
        series=tuple(_latency_series(name, levels) for name, levels in groups if levels),
    )
    yield Plot(
        name="tokens-concurrency",
        title=Text("Output tokens against requests in flight", "동시 요청 수에 따른 출력 토큰"),
        kind="line",
        x_label="requests in flight",
        y_label="tokens/s",
        series=(_token_series(in_flight),),
        log_x=True,
    )
    yield Plot(
        name="first-token",
        title=Text("Time to first token", "첫 토큰까지의 시간"),
        kind="histogram",
        x_label="ms",
        y_label="share of requests, %",
        series=tuple(_histogram(level, measured) for level, measured in in_flight[:3]),
    )
    if memory := [each for each in in_flight if each[1].usages]:
        yield _memory_plot(memory)


def _tables(results: ServeResults) -> Iterator[Table]:
    rows = [_row(level, measured) for level, measured in sorted(results.levels.items())]
    used = {key for row in rows for key, cell in row.items() if cell is not None}
    yield Table(
        name="levels",
        title=Text("Levels of load", "부하 단계"),
        columns=_LEVEL_COLUMNS,
        rows=tuple(rows),
        note=Text(
            "Latency: from sending to the last response with tokens. Outliers: requests more than "
            "five robust deviations from the median; they are counted in all figures.",
            "지연: 요청부터 토큰이 담긴 마지막 응답까지. 이상값: 중앙값에서 크게 벗어난 요청이며 "
            "모든 수치에 포함됩니다.",
        ),
    )
    yield Table(
        name="streaming",
        title=Text("Streaming, and what the server used", "스트리밍과 서버 자원"),
        columns=tuple(column for column in _STREAM_COLUMNS if column.key in used),
        rows=tuple(rows),
        note=Text(
            "First token: from sending to the first response, which carries text that no beam can "
            "change any more. Between tokens: the mean after the first response.",
            "첫 토큰: 요청부터 어떤 빔도 더는 바꿀 수 없는 글이 담긴 첫 응답까지. "
            "토큰 간격: 첫 응답 이후의 평균.",
        ),
    )
    if results.probes:
        yield Table(
            name="search",
            title=Text("Search for the highest load", "최대 부하 탐색"),
            columns=_PROBE_COLUMNS,
            rows=tuple(
                {
                    "rate": probe.rate,
                    "p95": probe.p95_ms,
                    "answered": probe.requests_per_s,
                    "failed": probe.num_failed,
                    "met": "yes" if probe.is_met else "no",
                }
                for probe in results.probes
            ),
        )


def _row(level: Level, measured: Measured) -> Row:
    return {
        "load": str(level),
        "requests": measured.spread(lambda found: found.requests_per_s),
        "tokens": measured.spread(lambda found: found.output_tokens_per_s),
        "goodput": measured.spread(lambda found: found.goodput_per_s),
        **{
            key: measured.spread(lambda found, key=key: found.latency_ms[key])  # type: ignore[misc]
            for key in ("p50", "p95", "p99")
        },
        "first_p50": measured.spread(lambda found: found.first_token_ms["p50"]),
        "first_p95": measured.spread(lambda found: found.first_token_ms["p95"]),
        "inter": measured.spread(lambda found: found.inter_token_ms.get("avg")),
        "cpu": measured.usage(lambda usage: usage.cpu_percent),
        "memory": measured.usage(lambda usage: usage.peak_memory_mb),
        "gpu": measured.usage(lambda usage: usage.gpu_percent),
        "failed": sum(each.num_failed for each in measured.repeats),
        "outliers": measured.num_outliers,
    }


def _sorted(results: ServeResults, *, is_rate: bool) -> list[tuple[Level, Measured]]:
    return [
        (level, each) for level, each in sorted(results.levels.items()) if level.is_rate == is_rate
    ]


def _latency_series(label: str, levels: Sequence[tuple[Level, Measured]]) -> Series:
    spreads = [
        (
            each.spread(lambda found: found.requests_per_s),
            each.spread(lambda found: found.latency_ms["p95"]),
        )
        for _, each in levels
    ]
    found = [(x, y) for x, y in spreads if x and y]
    return Series(
        label=label,
        x=tuple(x.median for x, _ in found),
        y=tuple(y.median for _, y in found),
        low=tuple(y.low for _, y in found),
        high=tuple(y.high for _, y in found),
    )


def _token_series(levels: Sequence[tuple[Level, Measured]]) -> Series:
    spreads = [each.spread(lambda found: found.output_tokens_per_s) for _, each in levels]
    found = [spread for spread in spreads if spread]
    return Series(
        label="tokens/s",
        x=tuple(level.value for level, _ in levels),
        y=tuple(spread.median for spread in found),
        low=tuple(spread.low for spread in found),
        high=tuple(spread.high for spread in found),
    )


def _histogram(level: Level, measured: Measured) -> Series:
    values = sorted(record.first_chunk_ms for record in measured.records if record.is_answered)
    low, high = values[0], values[-1] + 1e-6
    width = (high - low) / NUM_BINS
    counts = [0] * NUM_BINS
    for value in values:
        counts[int((value - low) / width)] += 1
    return Series(
        label=str(level),
        x=tuple(low + width * index for index in range(NUM_BINS + 1)),
        y=tuple(100 * count / len(values) for count in counts),
    )


def _memory_plot(levels: Sequence[tuple[Level, Measured]]) -> Plot:
    spreads = [each.usage(lambda usage: usage.peak_memory_mb) for _, each in levels]
    found = [spread for spread in spreads if spread]
    return Plot(
        name="memory",
        title=Text("Memory of the server's processes", "서버 프로세스의 메모리"),
        kind="bars",
        x_label="requests in flight",
        y_label="MB, resident",
        series=(
            Series(
                label="peak",
                x=tuple(range(len(found))),
                y=tuple(spread.median for spread in found),
                low=tuple(spread.low for spread in found),
                high=tuple(spread.high for spread in found),
            ),
        ),
        ticks=tuple(f"{level.value:g}" for level, _ in levels),
    )
