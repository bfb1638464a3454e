"""`kobart-health` as an orchestrator runs it, on servers that are well, busy, stuck and gone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.stubs import find_stubs
from server.supervisor import TritonServer, free_ports
from tests.conftest import REPOSITORY, STRICT_PYTHON
from tests.patience import PATIENCE_S, before_patience_ends
from tests.triton.conftest import running
from tests.triton.load import waiting

pytestmark = pytest.mark.triton

SHORT_S = 1.5  # of what would take for ever


def health(*options: str, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    command = [*STRICT_PYTHON, "-m", "client.health", "--timeout", str(timeout_s), *options]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def reason(*options: str, timeout_s: float = PATIENCE_S) -> str:
    """The one line of a failed probe, which ends in time."""
    with before_patience_ends():
        probe = health(*options, timeout_s=timeout_s)
    assert (probe.returncode, probe.stdout) == (1, "")
    assert probe.stderr.count("\n") == 1
    return probe.stderr


def test_a_server_that_is_well(triton: TritonServer) -> None:
    probe = health("--url", triton.grpc_url)
    assert (probe.returncode, probe.stderr) == (0, "")
    assert re.fullmatch(rf"kobart at {triton.grpc_url} answered in \d+ ms\n", probe.stdout)


def test_a_server_that_refuses_is_alive(narrow: TritonServer) -> None:
    with waiting(narrow, 2):
        probe = health("--url", narrow.grpc_url, "--model", "narrow")
    assert (probe.returncode, probe.stderr) == (0, "")
    assert "is alive and busy: 2 requests are waiting, limit 2" in probe.stdout


def test_a_model_that_is_not_there(triton: TritonServer) -> None:
    told = reason("--url", triton.grpc_url, "--model", "kobold")
    assert told.startswith("kobart-health: UNAVAILABLE: model 'kobold' is not loaded")


def test_nobody_is_there() -> None:
    told = reason("--url", f"127.0.0.1:{free_ports(1)[0]}")
    assert told.startswith("kobart-health: UNAVAILABLE: no Triton gRPC server answers")


def test_a_model_that_hangs(mini_build: Path, tmp_path: Path) -> None:
    """Triton itself goes on calling it ready."""
    with running(mini_build, tmp_path / "log") as server:
        (stub,) = find_stubs(server.pid)
        with stopped(stub.pid):
            told = reason("--url", server.grpc_url, timeout_s=SHORT_S)
        server.kill()  # it would wait for the lost request
        # Triton may notice, when it hands the request over, that the process does not listen.
        assert re.match("kobart-health: (DEADLINE_EXCEEDED: no summary|INTERNAL: Stub proc)", told)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("options", [("--timeout", "0"), ("--timeout", "soon"), ("--url", "here")])
def test_a_wrong_command_line(options: tuple[str, str]) -> None:
    probe = health(*options)
    assert (probe.returncode, probe.stdout) == (2, "")
    assert "Traceback" not in probe.stderr


def test_it_starts_without_the_heavy_libraries() -> None:
    code = "import sys, client.health; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "onnx", "onnxruntime", "tokenizers", "builders", "tqdm"}
    assert not heavy & set(loaded.stdout.split())
