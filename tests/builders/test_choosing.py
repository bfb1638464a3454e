"""What was asked for, or the faster of what passes the gate."""

from __future__ import annotations

import pytest

from builders.choosing import faster_of_two

SLOWER, FASTER = {"float": 2.0, "int8": 3.0}, {"float": 2.0, "int8": 1.0}


@pytest.mark.parametrize(
    ("asked", "agreement", "times", "taken", "reason"),
    [
        ("auto", 1.0, FASTER, "int8", "auto: float 2.0 ms, int8 1.0 ms a step"),
        ("auto", 0.97, FASTER, "int8", "auto: float 2.0 ms, int8 1.0 ms a step"),
        ("auto", 1.0, SLOWER, "float", "auto: float 2.0 ms, int8 3.0 ms a step"),
        ("auto", 0.9699, FASTER, "float", "auto: int8 agrees on 96.99%, gate 97.0%"),
        ("int8", 0.5, SLOWER, "int8", "as asked"),
    ],
)
def test_the_faster_that_passes_unless_one_is_asked_for(
    asked: str, agreement: float, times: dict[str, float], taken: str, reason: str
) -> None:
    assert faster_of_two(asked, agreement, times, "step") == (taken, reason)
