"""One small report with every kind of content."""

from __future__ import annotations

from client.perf.machine import Machine
from client.perf.statistics import Spread
from client.report.document import Column, Headline, Plot, Report, Series, Table, Text

MACHINE = Machine(
    date="2026-01-02T03:04:05+00:00",
    commit="0123456789ab",
    cpu="A processor",
    cpu_flags="avx2",
    num_cores=2,
    memory_gb=16.0,
    gpu="",
    system="Linux 6",
    python="3.11.7",
    governor="performance",
    versions={"numpy": "1.26.4", "onnxruntime": "1.32.0"},
)
LINE = Plot(
    name="latency-throughput",
    title=Text("Latency against throughput", "처리량에 따른 지연 시간"),
    kind="line",
    x_label="requests/s",
    y_label="p95 latency, ms",
    series=(
        Series(
            label="concurrency",
            x=(5, 9, 11),
            y=(80, 140, 300),
            low=(75, 130, 270),
            high=(90, 160, 350),
        ),
        Series(label="Poisson arrivals", x=(4, 8, 10), y=(90, 190, 420)),
    ),
)
SCATTER = Plot(
    name="rouge-speed",
    title=Text("ROUGE-L against speed", "속도에 따른 ROUGE-L"),
    kind="scatter",
    x_label="tokens/s",
    y_label="ROUGE-L",
    series=(
        Series(label="fp32", x=(100,), y=(0.70,)),
        Series(label="int8", x=(190,), y=(0.69,)),
        Series(label="pruned <b>", x=(120,), y=(0.60,)),
    ),
    front=(0, 1),
)
BARS = Plot(
    name="memory",
    title=Text("Memory", "메모리"),
    kind="bars",
    x_label="",
    y_label="MB",
    series=(
        Series(
            label="peak", x=(0, 1, 2), y=(300, 180, 240), low=(290, 175, 230), high=(310, 190, 260)
        ),
    ),
    ticks=("kobart-fp32", "kobart-int8", "PyTorch generate fp32, eager"),
)
HISTOGRAM = Plot(
    name="first-token",
    title=Text("Time to first token", "첫 토큰까지의 시간"),
    kind="histogram",
    x_label="ms",
    y_label="requests",
    series=(
        Series(label="1", x=(0, 10, 20, 30), y=(3, 8, 1)),
        Series(label="4", x=(0, 20, 40, 60), y=(2, 9, 4)),
    ),
)
TABLE = Table(
    name="levels",
    title=Text("Levels of load", "부하 단계"),
    columns=(
        Column(key="load", title=Text("Load", "부하"), is_key=True),
        Column(key="rate", title=Text("Throughput", "처리량"), unit="requests/s", better="higher"),
        Column(
            key="p95",
            title=Text("Latency p95", "지연 시간 p95"),
            unit="ms",
            better="lower",
            digits=0,
        ),
        Column(key="tokens", title=Text("Output tokens", "출력 토큰"), digits=0),
        Column(key="remark", title=Text("Remark", "비고")),
    ),
    rows=(
        {
            "load": "1",
            "rate": Spread.of([5.0, 5.5, 5.2]),
            "p95": Spread.of([80, 90]),
            "tokens": 1234,
            "remark": "a | b",
        },
        {
            "load": "4",
            "rate": Spread.of([9.0, 9.0]),
            "p95": None,
            "tokens": 12,
            "remark": "<script>",
        },
    ),
    note=Text("Each level is measured three times.", "각 단계를 세 번 측정합니다."),
)
REPORT = Report(
    command="kobart-bench serve",
    title=Text("How much a server of kobart-fp32 carries", "kobart-fp32 서버의 처리 한계"),
    machine=MACHINE,
    subject={"build": "kobart-fp32", "precision": "fp32", "runtime": "onnxruntime"},
    settings={"requests": "80 a level", "warm-up": "8 requests"},
    noise={"steal_percent": 0.1, "load_average": 0.5},
    headlines=(
        Headline(
            title=Text("Highest load within the target", "목표를 지키는 최대 부하"),
            value="9.4",
            unit="requests/s",
        ),
        Headline(
            title=Text("Replicas for 100 requests/s", "초당 100건에 필요한 복제본"), value="11"
        ),
    ),
    findings=(Text("One server carries 9.4 requests/s.", "서버 하나가 초당 9.4건을 처리합니다."),),
    plots=(LINE, SCATTER, BARS, HISTOGRAM),
    tables=(TABLE,),
)
