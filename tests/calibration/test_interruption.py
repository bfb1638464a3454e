"""The real command, interrupted and killed in the middle: what was there before is all there is."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MINI_CHECKPOINT, REPOSITORY
from tests.patience import PATIENCE_S

# The command, whose second batch never comes.
PROGRAM = """
import sys, time
from calibration import calibrator
from calibration.__main__ import main

all_feeds = calibrator.encoder_feeds

def one_feed(documents):
    yield next(iter(all_feeds(documents)))
    print("busy", flush=True)
    time.sleep(1e6)

calibrator.encoder_feeds = one_feed
sys.exit(main())
"""


@pytest.fixture
def calibrating(mini_build: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A calibration in its midst: a batch has run."""
    command = [sys.executable, "-c", PROGRAM, str(mini_build)]
    command += ["--data", str(MINI_CHECKPOINT / "dev.jsonl"), "--output", str(tmp_path / "s.json")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "busy\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("number", "status", "told", "before"),
    [
        (signal.SIGINT, 130, "interrupted: nothing was written\n", "an older calibration"),
        (signal.SIGKILL, -signal.SIGKILL, "", None),
    ],
)
def test_nothing_is_half_written(
    number: int,
    status: int,
    told: str,
    before: str | None,
    calibrating: subprocess.Popen[str],
    mini_build: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "s.json"
    if before:
        output.write_text(before, encoding="utf-8")
    built = sorted(mini_build.rglob("*"))
    calibrating.send_signal(number)
    _, error = calibrating.communicate(timeout=PATIENCE_S)
    assert calibrating.returncode == status
    assert error.endswith(told)
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == (["s.json"] if before else [])
    assert not before or output.read_text(encoding="utf-8") == before
    assert sorted(mini_build.rglob("*")) == built
