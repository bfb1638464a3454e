"""The results of `kobart-bench serve` as tables."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.serve_results import Level, Measured, ServeResults
from client.report.document import Column, Row, Table, Text

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


def serve_tables(results: ServeResults) -> Iterator[Table]:
    """Levels of load, streaming and resources, and the search."""
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
