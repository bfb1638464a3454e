"""The outcomes of an evaluation as headlines, plots and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from client.evaluation.outcome import Outcome
from client.perf.statistics import percentile
from client.report.document import Column, Headline, Plot, Series, Table, Text

UNITS = {
    "characters": Text("characters", "글자"),
    "morphemes": Text("morphemes", "형태소"),
    "words": Text("words", "어절"),
}
NUM_BINS = 20
MAX_DIFFERENCES = 8
_SCORE_COLUMNS = (
    Column(key="unit", title=Text("On", "단위"), is_key=True),
    *(
        Column(key=key, title=Text(name, name), digits=4, better="higher")
        for key, name in (("rouge_1", "ROUGE-1"), ("rouge_2", "ROUGE-2"), ("rouge_l", "ROUGE-L"))
    ),
)
_LENGTH_COLUMNS = (
    Column(key="what", title=Text("Length of", "길이"), is_key=True),
    *(
        Column(key=key, title=Text(name, korean), digits=0)
        for key, name, korean in (
            ("mean", "Mean", "평균"),
            ("p5", "p5", "p5"),
            ("p50", "Median", "중앙값"),
            ("p95", "p95", "p95"),
            ("max", "Longest", "최대"),
        )
    ),
)
_DIFFERENCE_COLUMNS = (
    Column(key="document", title=Text("Document", "문서"), is_key=True),
    Column(key="score", title=Text("ROUGE-L on characters", "글자 ROUGE-L"), digits=3),
    Column(key="summary", title=Text("Summary", "요약")),
    Column(key="other", title=Text("Compared with", "비교 대상")),
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures that a build is judged by."""

    num_documents: int
    rouge_l: float  # mean, on characters
    agreement: float | None  # mean over documents; None: PyTorch was not asked
    identical: float | None  # share of documents whose ids are all PyTorch's

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Evaluation:
        """Sum up."""
        agreements = [o.agreement for o in outcomes if o.agreement is not None]
        return cls(
            num_documents=len(outcomes),
            rouge_l=_mean([o.rouge["characters"].rouge_l for o in outcomes]),
            agreement=_mean(agreements) if agreements else None,
            identical=_mean([float(a == 1) for a in agreements]) if agreements else None,
        )


def headlines(found: Evaluation) -> Iterator[Headline]:
    """The figures at the top."""
    title = Text("ROUGE-L on characters", "글자 ROUGE-L")
    yield Headline(title=title, value=f"{found.rouge_l:.4f}")
    if found.agreement is not None and found.identical is not None:
        title = Text("Tokens as PyTorch's", "PyTorch와 같은 토큰")
        yield Headline(title=title, value=f"{100 * found.agreement:.2f}", unit="%")
        title = Text("Summaries as PyTorch's, to the token", "PyTorch와 완전히 같은 요약")
        yield Headline(title=title, value=f"{100 * found.identical:.1f}", unit="%")
    yield Headline(title=Text("Documents", "문서"), value=str(found.num_documents))


def plots(outcomes: Sequence[Outcome]) -> Iterator[Plot]:
    """How the scores and the lengths are distributed."""
    scores = [
        _histogram(unit, [o.rouge[unit].rouge_l for o in outcomes], 0.0, 1.0)
        for unit in UNITS
        if unit in outcomes[0].rouge
    ]
    yield Plot(
        name="rouge-distribution",
        title=Text("ROUGE-L over the documents", "문서별 ROUGE-L 분포"),
        kind="histogram",
        x_label="ROUGE-L, F1",
        y_label="documents",
        series=tuple(scores),
    )
    lengths = [
        [float(len(o.summary)) for o in outcomes],
        [float(len(o.reference)) for o in outcomes],
    ]
    longest = max(map(max, lengths)) + 1
    yield Plot(
        name="lengths",
        title=Text("Lengths of summaries and references", "요약과 기준 요약의 길이"),
        kind="histogram",
        x_label="characters",
        y_label="documents",
        series=tuple(
            _histogram(label, values, 0.0, longest)
            for label, values in zip(("summary", "reference"), lengths, strict=True)
        ),
    )


def tables(outcomes: Sequence[Outcome]) -> Iterator[Table]:
    """Scores, lengths, and the documents that differ most."""
    units = [unit for unit in UNITS if unit in outcomes[0].rouge]
    yield Table(
        name="scores",
        title=Text("ROUGE against the references", "기준 요약에 대한 ROUGE"),
        columns=_SCORE_COLUMNS,
        rows=tuple(
            {"unit": unit, **{k: _mean_score(outcomes, unit, k) for k in _SCORE_KEYS}}
            for unit in units
        ),
        note=Text(
            "Mean F1. Words carry their particles in Korean, so their scores are the lowest."
            + ("" if "morphemes" in units else " Morphemes were not scored: kiwipiepy is missing."),
            "F1 평균. 한국어 어절에는 조사가 붙어 있어 어절 점수가 가장 낮습니다."
            + ("" if "morphemes" in units else " kiwipiepy가 없어 형태소 점수는 없습니다."),
        ),
    )
    yield Table(
        name="lengths",
        title=Text("Lengths", "길이"),
        columns=_LENGTH_COLUMNS,
        rows=(
            _lengths("source, tokens", outcomes, lambda o: o.num_input_tokens),
            _lengths("summary, tokens", outcomes, lambda o: len(o.output_ids)),
            _lengths("summary, characters", outcomes, lambda o: len(o.summary)),
            _lengths("reference, characters", outcomes, lambda o: len(o.reference)),
        ),
        note=_length_note(outcomes),
    )
    yield from _differences(outcomes)


_SCORE_KEYS = ("rouge_1", "rouge_2", "rouge_l")


def _length_note(outcomes: Sequence[Outcome]) -> Text:
    cut = sum(o.truncated for o in outcomes)
    at_limit = sum(o.finish_reason == "length" for o in outcomes)
    return Text(
        f"{cut} sources were truncated; {at_limit} summaries ended at the limit of new tokens.",
        f"원문 {cut}건이 잘렸고, 요약 {at_limit}건이 최대 토큰 수에서 끝났습니다.",
    )


def _differences(outcomes: Sequence[Outcome]) -> Iterator[Table]:
    """The worst documents: those that differ from PyTorch if it was asked, else the lowest."""
    changed = [o for o in outcomes if o.agreement is not None and o.agreement < 1]
    asked = any(o.agreement is not None for o in outcomes)
    if asked and not changed:
        return
    key: Callable[[Outcome], float] = (
        (lambda o: o.agreement or 0.0) if asked else (lambda o: o.rouge["characters"].rouge_l)
    )
    worst = sorted(changed if asked else outcomes, key=key)[:MAX_DIFFERENCES]
    yield Table(
        name="differences",
        title=Text("The documents that differ most", "가장 많이 다른 문서"),
        columns=_DIFFERENCE_COLUMNS,
        rows=tuple(
            {
                "document": f"{o.index + 1}",
                "score": o.rouge["characters"].rouge_l,
                "summary": o.summary,
                "other": o.reference,
            }
            for o in worst
        ),
        note=Text(
            "Numbers count the documents of the data file, those left out as blank not included; "
            "compared with the reference.",
            "번호는 데이터 파일의 문서 순서이며, 비어 있어 제외한 행은 세지 않습니다. "
            "기준 요약과 비교합니다.",
        ),
    )


def _mean_score(outcomes: Sequence[Outcome], unit: str, key: str) -> float:
    return _mean([getattr(o.rouge[unit], key) for o in outcomes])


def _lengths(
    what: str, outcomes: Sequence[Outcome], length: Callable[[Outcome], int]
) -> dict[str, str | float]:
    values = [float(length(o)) for o in outcomes]
    spread = {f"p{p}": percentile(values, p) for p in (5, 50, 95)}
    return {"what": what, "mean": _mean(values), **spread, "max": max(values)}


def _histogram(label: str, values: Sequence[float], low: float, high: float) -> Series:
    width = (high - low) / NUM_BINS
    counts = [0] * NUM_BINS
    for value in values:
        counts[min(NUM_BINS - 1, int((value - low) / width))] += 1
    edges = tuple(low + width * index for index in range(NUM_BINS + 1))
    return Series(label=label, x=edges, y=tuple(map(float, counts)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
