from __future__ import annotations

import json

import pytest

from training.corpus.__main__ import main
from training.evaluation_sets import regenerate


def test_lines_are_the_seeded_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "3", "--split", "dev"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [example.to_json() for example in regenerate("dev")[:3]]


def test_count_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--count", "0"])
    assert "must be at least 1, got 0" in capsys.readouterr().err
