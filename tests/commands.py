"""Every command of the project, and its parser as argparse has it."""

from __future__ import annotations

import argparse
import importlib
import tomllib
from collections.abc import Iterator
from unittest import mock

from tests.conftest import REPOSITORY
from tests.test_layering import PACKAGES, python_files

_PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSOLE_SCRIPTS: dict[str, str] = {
    name: entry.removesuffix(":main") for name, entry in _PROJECT["scripts"].items()
}


def _is_command(source: str) -> bool:
    return '__name__ == "__main__"' in source and "ArgumentParser(" in source


# All modules that can be run: `python -m NAME`.
MODULES = sorted(
    {
        ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__main__")
        for package in PACKAGES
        for file in python_files(package)
        if _is_command(file.read_text(encoding="utf-8"))
    }
    | set(CONSOLE_SCRIPTS.values())
)


class _FoundError(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser with which a module's `main` reads its arguments."""

    def parse_args(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _FoundError(parser)

    try:
        loaded = importlib.import_module(f"{module}.__main__")
    except ModuleNotFoundError:
        loaded = importlib.import_module(module)
    with mock.patch("argparse.ArgumentParser.parse_args", parse_args):
        try:
            loaded.main()
        except _FoundError as found:
            return found.parser
    raise AssertionError(f"{module} parses no arguments")


def all_parsers(*modules: str) -> Iterator[argparse.ArgumentParser]:
    """The parsers of some modules, or of all, and of their commands."""
    for module in modules or MODULES:
        yield from _with_commands(parser_of(module))


def _with_commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _with_commands(each)


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What can be given, commands and `--help` aside."""
    ours = (argparse._HelpAction, argparse._SubParsersAction, argparse._VersionAction)
    return [action for action in parser._actions if not isinstance(action, ours)]
