from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import documented
from client.report.document import PARTIAL
from kobart_runtime.errors import ConfigError
from tests.client.report.example import REPORT, SCATTER

PAGE = "# Title\n<!-- serve -->\nold\n<!-- end -->\n\n<!-- engine -->\nkept\n<!-- end -->\n"


def test_only_the_section_of_that_name_is_replaced() -> None:
    text = documented.replaced(PAGE, "serve", REPORT)
    assert "old" not in text
    assert "kept" in text
    assert "One server carries 9.4 requests/s." in text
    assert "| 1 | 5.2 (5.0–5.5) | 85 (80–90) |" in text
    assert documented.replaced(text, "serve", REPORT) == text


def test_a_partial_report_is_called_so() -> None:
    partial = replace(REPORT, status=PARTIAL, reason="the server died")
    assert "Partial: the server died" in documented.section(partial)


def test_a_quick_report_is_called_so() -> None:
    assert "Made with --quick" in documented.section(replace(REPORT, is_quick=True))


def test_a_page_without_the_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="no section <!-- profile -->"):
        documented.replaced(PAGE, "profile", REPORT)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documented, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(documented, "PICTURE", tmp_path / "images" / "plot.svg")
    documented.PAGE.write_text(PAGE, encoding="utf-8")
    path = tmp_path / "serve" / "report.json"
    path.parent.mkdir()
    path.write_text(REPORT.to_json(), encoding="utf-8")
    assert documented.main([str(path)]) == 0
    assert "9.4 requests/s" in documented.PAGE.read_text(encoding="utf-8")
    svg = documented.PICTURE.read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "--series-0: #" in svg
    assert SCATTER.series[0].label in svg


def test_the_page_has_a_section_for_every_command() -> None:
    page = documented.PAGE.read_text(encoding="utf-8")
    names = ("engine", "serve", "compare", "compare-full-size", "profile", "evaluate")
    for name in names:
        assert f"<!-- {name} -->\n" in page
