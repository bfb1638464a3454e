"""A report as one HTML page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from client.perf.statistics import Spread
from client.report.cells import spread_written, written
from client.report.document import PARTIAL, QUICK_NOTE, Column, Plot, Report, Row, Table, Text
from client.report.plots import read_style, to_svg

# The page's own words. Nothing may be loaded from anywhere: the browser is told to hold us to it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_PARTIAL = Text(
    "This report is partial: the run ended early. ",
    "이 보고서는 불완전합니다. 측정이 도중에 끝났습니다. ",
)
_HOW = Text(
    "A value with a range below it is the median of its repeats, from the lowest to the highest. "
    "What is compared took turns. A ratio is given only where the ranges do not overlap; "
    "“no clear difference” means that this run cannot tell.",
    "값은 반복 측정의 중앙값이고, 그 아래 범위는 최솟값과 최댓값입니다. "
    "비교 대상은 번갈아 측정했습니다. 배율은 범위가 겹치지 않을 때만 적습니다. "
    "“no clear difference”는 이번 측정으로는 판단할 수 없다는 뜻입니다.",
)
_MEASURED = Text("How it was measured", "측정 방법")
_NAMES = {
    "load_generator": Text("Load generator", "부하 생성기"),
    "documents": Text("Documents", "문서"),
    "generation": Text("Generation", "생성 설정"),
    "requests": Text("Requests", "요청"),
    "rates": Text("Rates", "요청률"),
    "repeats": Text("Repeats", "반복"),
    "processes": Text("Processes", "프로세스"),
    "calls": Text("Calls", "호출"),
    "served": Text("Served", "서버 경유"),
    "operators": Text("Operators", "연산자"),
    "data": Text("Data", "데이터"),
    "answered_by": Text("Answered by", "응답 주체"),
    "compared_with": Text("Compared with", "비교 대상"),
    "date": Text("Date", "날짜"),
    "commit": Text("Commit", "커밋"),
    "cpu": Text("Processor", "프로세서"),
    "cpu_flags": Text("Instruction sets", "명령어 집합"),
    "num_cores": Text("Cores", "코어 수"),
    "memory_gb": Text("Memory, GB", "메모리, GB"),
    "gpu": Text("GPU", "GPU"),
    "system": Text("System", "운영 체제"),
    "python": Text("Python", "파이썬"),
    "governor": Text("Clock governor", "클록 거버너"),
    "versions": Text("Versions", "버전"),
    "steal_percent": Text(
        "CPU time taken by other guests, %", "다른 가상 머신이 가져간 CPU 시간, %"
    ),
    "load_average": Text("Load average at the end", "종료 시점의 평균 부하"),
}


def to_html(report: Report) -> str:
    """The whole page, in English and Korean."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(report.title.en)}</title>
<style>
{read_style("palette.css")}{read_style("style.css")}</style>
</head>
<body>
<main>
{_header(report)}
{_partial(report)}{_quick(report)}{_headlines(report)}{_findings(report)}
<section class="plots">
{"".join(map(_figure, report.plots))}</section>
{"".join(map(_table, report.tables))}
{_measured(report)}
</main>
</body>
</html>
"""


def _both(text: Text) -> str:
    return f'<span lang="en">{escape(text.en)}</span><span lang="ko">{escape(text.ko)}</span>'


def _header(report: Report) -> str:
    machine = report.machine
    hardware = machine.gpu or f"{machine.cpu} × {machine.num_cores}"
    facts = [*report.subject.values(), hardware, machine.date[:10], machine.commit]
    return f"""<header>
<div class="top">
<span class="command">{escape(report.command)}</span>
<div class="languages">
<input type="radio" name="lang" id="lang-en" checked><label for="lang-en" lang="en">English</label>
<input type="radio" name="lang" id="lang-ko"><label for="lang-ko" lang="ko">한국어</label>
</div>
</div>
<h1>{_both(report.title)}</h1>
<p class="facts">{escape(" · ".join(facts))}</p>
</header>"""


def _partial(report: Report) -> str:
    if report.status != PARTIAL:
        return ""
    return f'<p class="partial" role="alert">{_both(_PARTIAL)}{escape(report.reason)}</p>\n'


def _quick(report: Report) -> str:
    return f'<p class="partial" role="note">{_both(QUICK_NOTE)}</p>\n' if report.is_quick else ""


def _headlines(report: Report) -> str:
    if not report.headlines:
        return ""
    tiles = "\n".join(
        f"<div><dt>{_both(headline.title)}</dt>"
        f"<dd>{escape(headline.value)}<small>{escape(headline.unit)}</small></dd></div>"
        for headline in report.headlines
    )
    return f'<dl class="headlines">\n{tiles}\n</dl>\n'


def _findings(report: Report) -> str:
    if not report.findings:
        return ""
    items = "\n".join(f"<li>{_both(finding)}</li>" for finding in report.findings)
    return f'<ul class="findings">\n{items}\n</ul>'


def _figure(plot: Plot) -> str:
    return f"<figure><figcaption>{_both(plot.title)}</figcaption>{to_svg(plot)}</figure>\n"


def _table(table: Table) -> str:
    note = f'<p class="note">{_both(table.note)}</p>' if table.note else ""
    texts = {column.key for column in table.columns if not _is_number(table, column)}
    head = "".join(_heading(column, column.key in texts) for column in table.columns)
    body = "\n".join(
        f"<tr>{''.join(_cell(row, column, column.key in texts) for column in table.columns)}</tr>"
        for row in table.rows
    )
    return f"""<section>
<h2>{_both(table.title)}</h2>
{note}
<table><thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table>
</section>
"""


def _heading(column: Column, is_text: bool) -> str:
    unit = f"<small>{escape(column.unit)}</small>" if column.unit else ""
    return f"<th{_classes(text=is_text)}>{_both(column.title)}{unit}</th>"


def _cell(row: Row, column: Column, is_text: bool) -> str:
    cell = row.get(column.key)
    spread = spread_written(cell, column)
    range_below = f"<small>{spread}</small>" if spread else ""
    unit = f", {column.unit}" if column.unit else ""
    labels = "".join(
        f' data-{language}="{escape(title + unit)}"'
        for language, title in (("en", column.title.en), ("ko", column.title.ko))
    )
    classes = _classes(text=is_text, key=column.is_key)
    return f"<td{classes}{labels}>{escape(written(cell, column))}{range_below}</td>"


def _classes(**flags: bool) -> str:
    names = " ".join(name for name, is_set in flags.items() if is_set)
    return f' class="{names}"' if names else ""


def _is_number(table: Table, column: Column) -> bool:
    return any(isinstance(row.get(column.key), int | float | Spread) for row in table.rows)


def _measured(report: Report) -> str:
    machine = {k: v for k, v in vars(report.machine).items() if k != "versions" and v}
    versions = ", ".join(f"{name} {version}" for name, version in report.machine.versions.items())
    rows = [
        *_details(report.settings),
        *_details(machine),
        *_details(report.noise),
        *_details({"versions": versions}),
    ]
    return f"""<section>
<h2>{_both(_MEASURED)}</h2>
<p class="how">{_both(_HOW)}</p>
<dl class="details">
{"".join(rows)}</dl>
</section>"""


def _details(values: Mapping[str, object]) -> Iterable[str]:
    for name, value in values.items():
        plain = name.replace("_", " ").capitalize()
        title = _NAMES.get(name, Text(plain, plain))
        yield f"<dt>{_both(title)}</dt><dd>{escape(str(value))}</dd>\n"
