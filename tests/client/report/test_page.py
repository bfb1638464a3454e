"""The page as a browser shows it, on a phone and on a desk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from client.report.document import PARTIAL, Report
from client.report.page import to_html
from tests.browser import CHROMIUM, Browser
from tests.client.report.example import REPORT

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs chromium: apt-get install chromium")

WIDTHS = (390, 1200)
OVERFLOWING = """
[...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(element => element.outerHTML.slice(0, 120))
"""
DRAWN = """
[...document.querySelectorAll('figure svg')].map(svg => ({
  width: svg.getBoundingClientRect().width,
  height: svg.getBoundingClientRect().height,
  marks: svg.querySelectorAll('path, use').length,
  texts: svg.querySelectorAll('text').length,
  ink: getComputedStyle(svg.querySelector('text')).fill,
}))
"""
SHOWN_TEXT = "document.querySelector('h1').innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("page") / "report.html", REPORT)


def write(path: Path, report: Report) -> Path:
    path.write_text(to_html(report), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", WIDTHS)
def test_plots_are_drawn_and_nothing_overflows(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    plots = browser.evaluate(DRAWN)
    assert len(plots) == len(REPORT.plots)
    for plot in plots:
        assert plot["width"] > 250
        assert plot["height"] > 150
        assert plot["marks"] > 8
        assert plot["texts"] > 6
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(OVERFLOWING) == []


def test_no_request_leaves_the_page(browser: Browser, page: Path) -> None:
    browser.requests.clear()
    browser.open(page, width=390)
    assert browser.requests == [page.resolve().as_uri()]


def test_the_language_switch(browser: Browser, page: Path) -> None:
    browser.open(page, width=390)
    assert browser.evaluate(SHOWN_TEXT) == REPORT.title.en
    browser.evaluate("document.querySelector('label[for=lang-ko]').click()")
    assert browser.evaluate(SHOWN_TEXT) == REPORT.title.ko
    label = browser.evaluate("getComputedStyle(document.querySelector('td'), '::before').content")
    assert label == '"부하"'


def test_dark_mode_changes_plots_too(browser: Browser, page: Path) -> None:
    browser.open(page, width=390)
    light = browser.evaluate(DRAWN)[0]["ink"]
    browser.open(page, width=390, dark=True)
    assert browser.evaluate(DRAWN)[0]["ink"] != light


def test_texts_are_escaped(browser: Browser, page: Path) -> None:
    browser.open(page, width=1200)
    assert browser.evaluate("document.querySelectorAll('script').length") == 0
    assert "<script>" in browser.evaluate("document.querySelector('table').innerText")


def test_a_partial_report_says_so(browser: Browser, tmp_path: Path) -> None:
    partial = replace(REPORT, status=PARTIAL, reason="the server died <here>")
    browser.open(write(tmp_path / "partial.html", partial), width=390)
    assert "the server died <here>" in browser.evaluate(
        "document.querySelector('[role=alert]').innerText"
    )
