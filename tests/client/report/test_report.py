from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from client.report.document import PARTIAL, QUICK_NOTE, Series, read_report
from client.report.page import to_html
from client.report.plain import CSV_FIELDS, to_csv, to_markdown
from client.report.plots import to_svg
from client.report.writing import prepare_folder, write_report
from kobart_runtime.errors import ConfigError
from tests.client.report.example import BARS, REPORT


def test_all_forms_are_written_and_json_reads_back(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "folder")
    paths = write_report(REPORT, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        *("report.json", "report.csv", "report.md", "report.html")
    ]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(p.name for p in paths)
    assert read_report(paths[0]) == REPORT


def test_csv_has_one_line_a_cell() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(REPORT))))
    assert list(lines[0]) == list(CSV_FIELDS)
    (rate,) = [line for line in lines if (line["row"], line["column"]) == ("1", "rate")]
    assert (rate["value"], rate["low"], rate["high"], rate["repeats"]) == ("5.2", "5.0", "5.5", "3")
    assert not [line for line in lines if (line["row"], line["column"]) == ("4", "p95")]


def test_markdown() -> None:
    text = to_markdown(replace(REPORT, status=PARTIAL, reason="the server died"))
    assert "**Partial:** the server died" in text
    assert "| 1 | 5.2 (5.0–5.5) | 85 (80–90) | 1,234 | a / b |" in text
    assert "| 4 | 9.0 | – | 12 |" in text


def test_every_page_of_a_quick_report_says_so(tmp_path: Path) -> None:
    """And the page of one that is not says nothing of the kind."""
    quick = replace(REPORT, is_quick=True)
    for to_page in (to_markdown, to_html):
        assert "Made with --quick" in to_page(quick)
        assert "--quick" not in to_page(REPORT)
    assert QUICK_NOTE.ko in to_html(quick)
    assert read_report(write_report(quick, tmp_path)[0]).is_quick


@pytest.mark.parametrize("plot", REPORT.plots, ids=lambda plot: plot.kind)
def test_a_plot_takes_colours_and_font_from_the_page(plot: object) -> None:
    svg = to_svg(plot)  # type: ignore[arg-type]
    assert svg.startswith("<svg role=")
    assert "var(--ink)" in svg or "var(--muted)" in svg
    assert "var(--series-0)" in svg
    assert "#0a0a" not in svg
    assert "DejaVu" not in svg


@pytest.mark.parametrize("values", [(0.0, 0.0), (-3.0, -1.0), (-2.0, 5.0)])
@pytest.mark.parametrize(
    "names", [("1", "2"), ("kobart-fp32-of-a-longer-name", "kobart-int8-of-a-longer-name")]
)
def test_values_that_are_not_above_zero_are_drawn(
    names: tuple[str, ...], values: tuple[float, ...]
) -> None:
    """As a share that is a difference may be, on a busy machine."""
    series = Series(label="a", x=(0.0, 1.0), y=values)
    assert to_svg(replace(BARS, series=(series,), ticks=names)).startswith("<svg ")


def test_plots_do_not_share_names_in_one_page() -> None:
    other = replace(BARS, name="other", series=(Series(label="", x=(0, 1, 2), y=(1, 2, 3)),))
    clips = [
        {part.split('"')[0] for part in to_svg(plot).split('id="')[1:]} for plot in (BARS, other)
    ]
    assert clips[0]
    assert not clips[0] & clips[1]


def test_an_unwritable_folder_is_found_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written.*choose another --output"):
        prepare_folder(tmp_path / "file" / "folder")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "other"}', '{"schema": 1}'])
def test_other_files_are_no_reports(content: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"is not a report of kobart-bench"):
        read_report(path)
