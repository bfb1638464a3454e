"""Tests can be believed wherever they run: none inherits a signal, none compares with the clock."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.patience import PATIENCE_S

TESTS = REPOSITORY / "tests"
CLOCKS = {"monotonic", "perf_counter", "time", "perf_counter_ns", "monotonic_ns", "time_ns"}
ASK = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_a_command_that_tests_start_can_be_interrupted() -> None:
    told = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert told.stdout == "True\n"


@pytest.mark.parametrize("workers", [(), ("--numprocesses", "1")])
def test_so_it_can_where_the_tests_run_in_the_background(workers: tuple[str, ...]) -> None:
    name = f"{Path(__file__)}::{test_a_command_that_tests_start_can_be_interrupted.__name__}"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        command = [sys.executable, "-m", "pytest", "-q", *workers, name]
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.returncode == 0, ended.stdout


def elapsed_comparisons(tree: ast.AST) -> Iterator[int]:
    """Lines that ask whether some time, as a clock tells it, is below something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.LtE):
            calls = [each for each in ast.walk(node.left) if isinstance(each, ast.Call)]
            if any(getattr(call.func, "attr", "") in CLOCKS for call in calls):
                yield node.lineno


def short_limits(tree: ast.AST) -> Iterator[int]:
    """Lines that give a process, thread or queue fewer seconds than a hang takes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = [each.value for each in node.keywords if each.arg == "timeout"]
            limits = [each.value for each in given if isinstance(each, ast.Constant)]
            if any(isinstance(each, int | float) and each < PATIENCE_S for each in limits):
                yield node.lineno


def test_no_test_fails_for_what_else_runs_on_the_machine() -> None:
    """Wall-clock promises are for `speed` tests; all others wait as tests/patience.py does."""
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        if path.name in ("patience.py", "test_speed.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines = {*elapsed_comparisons(tree), *short_limits(tree)}
        found += [f"{path.relative_to(REPOSITORY)}:{line}" for line in sorted(lines)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "assert time.monotonic() - started < 5",
        "assert time.perf_counter() < deadline_s",
        "process.wait(timeout=60)",
    ],
)
def test_the_walk_sees_clocks_and_limits(line: str) -> None:
    tree = ast.parse(line)
    assert [*elapsed_comparisons(tree), *short_limits(tree)] == [1]
