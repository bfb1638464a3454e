from __future__ import annotations

from pathlib import Path

import pytest

from kobart_runtime.errors import ConfigError
from training.finetune_run import Run

INPUTS = {"settings": {"seed": 1, "prune": ("2:4",)}, "train": {"sha256": "aa"}}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    begun = Run(tmp_path / "out")
    begun.begin(INPUTS, {"rouge_l": 0.5})
    return begun


def test_a_checkpoint_that_a_kill_cut_short_is_passed_over(run: Run) -> None:
    assert run.last_checkpoint is None
    for step, state in ((9, "{}"), (10, "{}"), (11, '{"cut'), (12, None)):
        folder = run.folder / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state, encoding="utf-8")
    assert run.last_checkpoint == run.folder / "checkpoint-10"


def test_resume_gives_back_what_was_measured(run: Run) -> None:
    assert run.resume(INPUTS) == {"rouge_l": 0.5}


def test_every_difference_is_named(run: Run) -> None:
    other = {"settings": {"seed": 2, "prune": ("2:4",)}, "train": {"sha256": "bb"}}
    with pytest.raises(ConfigError, match=r"settings\.seed 1, not 2, train\.sha256 'aa', not 'bb'"):
        run.resume(other)


def test_nothing_is_left_at_the_end(run: Run) -> None:
    run.end()
    assert not run.is_begun
    assert not list(run.folder.parent.iterdir())
