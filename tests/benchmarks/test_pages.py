"""Tables inside pages: written where they are asked for, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.guide import PAGES, tables
from benchmarks.pages import filled, markdown_table
from kobart_runtime.errors import ConfigError

PAGE = (
    "before\n<!-- table: one -->\nold\n<!-- end -->\nbetween\n<!-- table: two -->\n<!-- end -->\n"
)


def test_tables_are_written_between_their_marks() -> None:
    page = filled(PAGE, {"one": lambda: "| 1 |", "two": lambda: "| 2 |"})
    assert page == (
        "before\n<!-- table: one -->\n\n| 1 |\n\n<!-- end -->\n"
        "between\n<!-- table: two -->\n\n| 2 |\n\n<!-- end -->\n"
    )
    assert filled(page, {"one": lambda: "| 1 |", "two": lambda: "| 2 |"}) == page


def test_an_unknown_table_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no table 'two': there are one"):
        filled(PAGE, {"one": str})


def test_markdown_table() -> None:
    assert markdown_table(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_committed_pages_show_the_committed_measurements(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert filled(text, tables()) == text
