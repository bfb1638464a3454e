"""The results of `kobart-bench compare` as a table, plots and one recommendation."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.contestants import Round
from benchmarks.recording import Content
from client.evaluation.outcome import agreement
from client.perf.statistics import Spread, ratio, speed_up
from client.report.document import Column, Headline, Plot, Row, Series, Table, Text

_COLUMNS = (
    Column(key="system", title=Text("System", "시스템"), is_key=True),
    Column(key="ms", title=Text("Batch", "배치"), unit="ms", better="lower"),
    Column(key="rate", title=Text("Documents", "문서"), unit="per s", digits=2, better="higher"),
    Column(key="speed", title=Text("Speed", "속도")),
    Column(key="tokens", title=Text("Tokens", "토큰"), unit="per s", digits=0, better="higher"),
    Column(key="rouge", title=Text("ROUGE-L", "ROUGE-L"), digits=4, better="higher"),
    Column(key="kept", title=Text("Kept", "유지"), unit="%", digits=1, better="higher"),
    Column(key="same", title=Text("Tokens as PyTorch's", "PyTorch와 같은 토큰"), unit="%"),
    Column(key="memory", title=Text("Memory", "메모리"), unit="MB", digits=0, better="lower"),
    Column(key="size", title=Text("On disk", "디스크"), unit="MB", better="lower"),
)

_SCORES = ("rouge", "kept")


@dataclass
class SystemResult:
    """One system."""

    size_mb: float
    ids: list[list[int]]
    rouge_l: float
    rounds: list[Round] = field(default_factory=list)

    @property
    def batch_ms(self) -> Spread:
        """Mean milliseconds a batch, over the repeats."""
        return Spread.of([1000 * statistics.mean(each.batch_s) for each in self.rounds])

    @property
    def documents_per_s(self) -> Spread:
        """Over the repeats."""
        return Spread.of([len(each.ids) / sum(each.batch_s) for each in self.rounds])

    @property
    def tokens_per_s(self) -> Spread:
        """Over the repeats."""
        return Spread.of([sum(map(len, each.ids)) / sum(each.batch_s) for each in self.rounds])

    @property
    def memory_mb(self) -> float:
        """The most that its process has had."""
        return max(each.peak_memory_mb for each in self.rounds)


@dataclass
class CompareResults:
    """Everything of one run."""

    baseline: str
    least_rouge_share: float
    builds: tuple[str, ...]
    is_trained: bool = True  # False: random weights, whose summaries are not worth a score
    systems: dict[str, SystemResult] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def add(self, name: str, size_mb: float, ids: list[list[int]], rouge: float) -> None:
        """Keep a system's summaries."""
        self.systems[name] = SystemResult(size_mb=size_mb, ids=ids, rouge_l=rouge)

    def time(self, name: str, found: Round) -> None:
        """Keep a repeat."""
        self.systems[name].rounds.append(found)

    @property
    def timed(self) -> dict[str, SystemResult]:
        """Systems that were timed at least once, as they were given."""
        return {name: result for name, result in self.systems.items() if result.rounds}

    def kept(self, result: SystemResult) -> float:
        """ROUGE-L as a share of the baseline's."""
        base = self.systems[self.baseline].rouge_l
        return result.rouge_l / base if base else 1.0

    @property
    def recommended(self) -> str | None:
        """The fastest build that keeps enough of the baseline's ROUGE-L; None: none does."""
        if not self.is_trained:
            return None
        good = {
            name: result
            for name, result in self.timed.items()
            if name in self.builds and self.kept(result) >= self.least_rouge_share
        }
        return max(good, key=lambda name: good[name].documents_per_s.median, default=None)


def compare_content(results: CompareResults) -> Content | None:
    """What has been measured so far; None if nothing."""
    if results.baseline not in results.timed:
        return None
    return Content(
        headlines=tuple(_headlines(results)),
        findings=tuple(_findings(results)),
        plots=tuple(_plots(results)),
        tables=(_table(results),),
    )


def _speed(results: CompareResults, name: str) -> str:
    timed = results.timed
    if name == results.baseline:
        return "1"
    return speed_up(timed[name].documents_per_s, timed[results.baseline].documents_per_s)


def _headlines(results: CompareResults) -> Iterator[Headline]:
    name = results.recommended
    if name is None:
        return
    result = results.timed[name]
    yield Headline(title=Text("Recommended build", "추천 빌드"), value=name)
    title = Text(f"Speed against {results.baseline}", f"{results.baseline} 대비 속도")
    yield Headline(title=title, value=_speed(results, name))
    title = Text("ROUGE-L kept", "ROUGE-L 유지")
    yield Headline(title=title, value=f"{100 * results.kept(result):.1f}", unit="%")


def _findings(results: CompareResults) -> Iterator[Text]:
    share = f"{100 * results.least_rouge_share:g}"
    name = results.recommended
    if not results.is_trained:
        yield Text(
            "The weights are random: no ROUGE, and no recommendation.",
            "가중치가 무작위이므로 ROUGE도 추천도 없습니다.",
        )
    elif name is None:
        yield Text(
            f"No build keeps {share} % of the ROUGE-L of {results.baseline}.",
            f"{results.baseline} ROUGE-L의 {share} %를 유지하는 빌드가 없습니다.",
        )
    else:
        yield _reason(results, name, share)
    for skipped in results.skipped:
        yield Text(f"Not compared: {skipped}", f"비교하지 않음: {skipped}")


def _reason(results: CompareResults, name: str, share: str) -> Text:
    """Why it is recommended, and which others cannot be told apart from it."""
    best = results.timed[name]
    rivals = [
        other
        for other, result in results.timed.items()
        if other in results.builds
        and other != name
        and results.kept(result) >= results.least_rouge_share
        and not _is_clear(best, result)
    ]
    reason = Text(
        f"{name} is recommended: the fastest of the builds that keep at least {share} % of the "
        f"ROUGE-L of {results.baseline}.",
        f"추천: {name}. {results.baseline} ROUGE-L의 {share} % 이상을 유지하는 "
        "빌드 중 가장 빠릅니다.",
    )
    if not rivals:
        return reason
    listed = ", ".join(rivals)
    return Text(
        f"{reason.en} This run cannot tell it from {listed}: let size and memory decide.",
        f"{reason.ko} 이번 측정으로는 구별되지 않는 빌드: {listed}.",
    )


def _is_clear(best: SystemResult, other: SystemResult) -> bool:
    found = ratio(best.documents_per_s, other.documents_per_s)
    return found is not None and found.is_clear


def _table(results: CompareResults) -> Table:
    base = results.systems[results.baseline]
    columns = tuple(
        column for column in _COLUMNS if results.is_trained or column.key not in _SCORES
    )
    values: list[Row] = [
        {
            "system": name,
            "ms": result.batch_ms,
            "rate": result.documents_per_s,
            "speed": _speed(results, name),
            "tokens": result.tokens_per_s,
            "rouge": result.rouge_l,
            "kept": 100 * results.kept(result),
            "same": 100 * _agreement(result.ids, base.ids),
            "memory": result.memory_mb,
            "size": result.size_mb,
        }
        for name, result in results.timed.items()
    ]
    return Table(
        name="systems",
        title=Text("Systems", "시스템"),
        columns=columns,
        rows=tuple({column.key: row[column.key] for column in columns} for row in values),
        note=Text(
            f"Speed: documents a second against {results.baseline}. ROUGE-L on characters. Memory: "
            "the most that the system's process has had, its libraries included. On disk: weights "
            "or engines; a checkpoint may be stored in float16.",
            f"속도: {results.baseline} 대비 초당 문서 수. ROUGE-L은 글자 기준. "
            "메모리: 라이브러리를 포함한 프로세스의 최대 사용량. 디스크: 가중치 또는 엔진.",
        ),
    )


def _plots(results: CompareResults) -> Iterator[Plot]:
    timed = results.timed
    names = list(timed)
    if results.is_trained:
        yield _rouge_against_speed(timed)
    yield _bars(
        "speed",
        Text("Documents a second", "초당 문서 수"),
        "documents/s",
        {name: timed[name].documents_per_s for name in names},
    )
    yield _bars(
        "memory",
        Text("Peak memory", "최대 메모리"),
        "MB",
        {name: Spread.of([timed[name].memory_mb]) for name in names},
    )
    yield _bars(
        "size",
        Text("Size on disk", "디스크 크기"),
        "MB",
        {name: Spread.of([timed[name].size_mb]) for name in names},
    )


def _rouge_against_speed(timed: dict[str, SystemResult]) -> Plot:
    points = [(result.documents_per_s.median, result.rouge_l) for result in timed.values()]
    return Plot(
        name="rouge-speed",
        title=Text("ROUGE-L against speed", "속도에 따른 ROUGE-L"),
        kind="scatter",
        x_label="documents/s",
        y_label="ROUGE-L on characters",
        series=tuple(
            Series(label=name, x=(x,), y=(y,)) for name, (x, y) in zip(timed, points, strict=True)
        ),
        front=pareto_front(points),
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Indexes of the points that no other one beats in both values."""
    return tuple(
        index
        for index, (x, y) in enumerate(points)
        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
    )


def _bars(name: str, title: Text, unit: str, values: dict[str, Spread]) -> Plot:
    spreads = list(values.values())
    with_range = any(spread.repeats > 1 for spread in spreads)
    return Plot(
        name=name,
        title=title,
        kind="bars",
        x_label="",
        y_label=unit,
        series=(
            Series(
                label=unit,
                x=tuple(range(len(spreads))),
                y=tuple(spread.median for spread in spreads),
                low=tuple(spread.low for spread in spreads) if with_range else (),
                high=tuple(spread.high for spread in spreads) if with_range else (),
            ),
        ),
        ticks=tuple(values),
    )


def _agreement(ids: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    return statistics.mean(agreement(a, b) for a, b in zip(ids, others, strict=True))
