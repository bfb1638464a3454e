"""The results of `kobart-bench serve` as headlines and plots, with its tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.recording import Content
from benchmarks.serve_results import Level, Measured, ServeResults
from benchmarks.serve_tables import serve_tables
from client.report.document import Headline, Plot, Series, Text

NUM_BINS = 16


def serve_content(results: ServeResults) -> Content | None:
    """What has been measured so far; None if nothing."""
    if not results.levels:
        return None
    return Content(
        headlines=tuple(_headlines(results)),
        findings=tuple(_findings(results)),
        plots=tuple(_plots(results)),
        tables=tuple(serve_tables(results)),
    )


def _headlines(results: ServeResults) -> Iterator[Headline]:
    target, load = f"{results.target_ms:g}", f"{results.load_per_s:g}"
    if (rate := results.highest_rate) is not None:
        title = Text(
            f"Highest load with p95 within {target} ms", f"p95 {target} ms 이내의 최대 부하"
        )
        yield Headline(title=title, value=f"{rate:.1f}", unit="requests/s")
        if results.counts_replicas:
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
        yield Text(
            f"With Poisson arrivals, one server holds p95 within {target} ms up to {rate:.1f} "
            "requests/s.",
            f"포아송 도착에서 서버 하나는 초당 {rate:.1f}건까지 p95 {target} ms를 지킵니다.",
        )
        if results.counts_replicas:
            load, replicas = f"{results.load_per_s:g}", results.num_replicas
            yield Text(
                f"{load} requests/s need {replicas} such servers, without any in reserve.",
                f"초당 {load}건에는 예비 없이 서버 {replicas}대가 필요합니다.",
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
