"""The real command, interrupted and killed in the middle: what was there before is all there is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MINI_CHECKPOINT, REPOSITORY

WAIT_S = 60.0


@pytest.fixture
def calibrating(mini_build: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A calibration on all dev documents that has opened its graphs, and takes seconds more."""
    command = [sys.executable, "-m", "calibration", str(mini_build)]
    command += ["--data", str(MINI_CHECKPOINT / "dev.jsonl"), "--output", str(tmp_path / "s.json")]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        _wait_until_busy(process)
        yield process
        process.kill()


def _wait_until_busy(process: subprocess.Popen[str]) -> None:
    """Until ONNX Runtime is loaded, and a moment more, in which batches begin to run."""
    deadline = time.monotonic() + WAIT_S
    maps = Path(f"/proc/{process.pid}/maps")
    while "onnxruntime_pybind11" not in maps.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.5)


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
    _, error = calibrating.communicate(timeout=WAIT_S)
    assert calibrating.returncode == status
    assert error.endswith(told)
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == (["s.json"] if before else [])
    assert not before or output.read_text(encoding="utf-8") == before
    assert sorted(mini_build.rglob("*")) == built
