"""`kobart-evaluate --url`: a served build gives the scores that it gives in process."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.evaluate import main
from server.supervisor import TritonServer
from tests.conftest import MINI_CHECKPOINT

pytestmark = pytest.mark.triton


def test_served_and_local_answers_are_the_same(
    triton: TritonServer, mini_build: Path, tmp_path: Path
) -> None:
    flags = ("--data", str(MINI_CHECKPOINT / "dev.jsonl"), "--limit", "12", "--num-beams", "2")
    for name, url in (("served", ("--url", triton.grpc_url)), ("local", ())):
        assert main([str(mini_build), "--output", str(tmp_path / name), *flags, *url]) == 0
    served, local = (
        (tmp_path / name / "documents.jsonl").read_bytes() for name in ("served", "local")
    )
    assert served == local


def test_a_server_without_the_model_is_one_clear_error(
    triton: TritonServer, narrow_build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(MINI_CHECKPOINT / "dev.jsonl"), "--limit", "2")
    output = ("--output", str(tmp_path / "out"))
    assert main([str(narrow_build), *data, *output, "--url", triton.grpc_url]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert f"model 'narrow' is not loaded at {triton.grpc_url}" in line


def test_a_wrong_url_is_one_clear_error(
    mini_build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(MINI_CHECKPOINT / "dev.jsonl"), "--limit", "2")
    output = ("--output", str(tmp_path / "out"))
    assert main([str(mini_build), *data, *output, "--url", "127.0.0.1:9"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "no Triton gRPC server answers at 127.0.0.1:9" in line
