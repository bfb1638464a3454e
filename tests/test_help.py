"""The help of every command: each option has a text, and what texts name is there."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import CONSOLE_SCRIPTS, MODULES, all_parsers, options, parser_of
from tests.conftest import REPOSITORY
from tests.test_layering import SOURCES, python_files

# A page that a program writes, so that it is not in a checkout -> the program.
WRITTEN = {"docs/gpu.md": "benchmarks.gpu", "docs/gpu.json": "benchmarks.gpu"}
PAGE = re.compile(r"\bdocs/[\w./-]*\w")


def test_every_command_is_looked_at() -> None:
    assert set(CONSOLE_SCRIPTS.values()) <= set(MODULES)
    assert len(list(all_parsers())) > len(MODULES)  # kobart-bench has commands of its own


@pytest.mark.parametrize("module", MODULES)
def test_every_option_has_a_help_text(module: str) -> None:
    silent = [
        f"{parser.prog} {'/'.join(option.option_strings) or option.dest}"
        for parser in all_parsers(module)
        for option in options(parser)
        if not option.help or option.help is argparse.SUPPRESS
    ]
    assert not silent


@pytest.mark.parametrize("module", MODULES)
def test_every_command_says_what_it_does(module: str) -> None:
    for parser in all_parsers(module):
        assert parser.description, parser.prog
        assert parser.format_help()  # no stray % in a text


def test_quick_is_described_by_what_the_command_measures() -> None:
    texts = {
        parser.prog: option.help or ""
        for parser in all_parsers()
        for option in options(parser)
        if "--quick" in option.option_strings
    }
    assert len(texts) > 5
    assert "16 documents" in texts["kobart-evaluate"]
    speaking = {prog for prog, text in texts.items() if "level" in text}
    assert speaking == {"kobart-bench serve"}


def texts() -> Iterator[tuple[Path, str]]:
    """Whatever may send a reader to a page: pages, Makefile, sources with their docstrings."""
    files = [REPOSITORY / "Makefile", REPOSITORY / "pyproject.toml"]
    for pattern in ("*.md", "docs/**/*.md", "*/README.md", "assets/**/*.md", "configs/**/*"):
        files.extend(REPOSITORY.glob(pattern))
    files.extend(file for folder in SOURCES for file in python_files(folder))
    files.extend((REPOSITORY / "model_repository").rglob("*.pbtxt"))
    for file in files:
        if file.is_file():
            yield file, file.read_text(encoding="utf-8")


def test_every_page_that_is_named_is_there() -> None:
    named = [(file, page) for file, text in texts() for page in PAGE.findall(text)]
    assert len(named) > 30
    missing = {
        f"{file.relative_to(REPOSITORY)}: {page}"
        for file, page in named
        if not (REPOSITORY / page).exists() and page not in WRITTEN
    }
    assert not missing


def test_help_sends_nobody_to_a_page_that_a_program_has_yet_to_write() -> None:
    helps = [parser.format_help() for parser in all_parsers()]
    helps.append((REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    for text in helps:
        for page in PAGE.findall(re.sub(r"-\n\s*", "-", text)):
            assert (REPOSITORY / page).exists(), page


def test_the_parser_of_a_command_is_found() -> None:
    assert parser_of("builders.build_all").prog == "kobart-build"
