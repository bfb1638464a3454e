from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client import perf_analyzer
from client.perf_analyzer import PerfAnalyzer, PerfAnalyzerError, find_perf_analyzer
from kobart_runtime.errors import ConfigError, KobartError
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE_S, before_patience_ends

pytestmark = pytest.mark.triton


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LD_LIBRARY_PATH", "")


@pytest.mark.parametrize("path", [None, "/nowhere"])
def test_finds_one_that_runs(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if path:
        monkeypatch.setenv("PATH", path)
    found = find_perf_analyzer()
    assert found.version == importlib.metadata.version("tritonclient")
    assert found.version in found.run(["--version"], timeout_s=PATIENCE_S).stderr
    assert found.command(["-m", "kobart"]) == [str(found.path), "-m", "kobart"]


def test_finds_one_whatever_libraries_this_process_has() -> None:
    """PyTorch for CUDA loads the library of the wheel, which perf_analyzer would still not find."""
    program = (
        "import ctypes\n"
        "from client.perf_analyzer import _CUDART, _file_of, find_perf_analyzer\n"
        "ctypes.CDLL(str(_file_of('nvidia-cuda-runtime-cu12', _CUDART)))\n"
        "find_perf_analyzer()\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


def test_a_refused_argument_is_an_error() -> None:
    with pytest.raises(PerfAnalyzerError, match="unrecognized option '--no-such-option'"):
        find_perf_analyzer().run(["--no-such-option"], timeout_s=PATIENCE_S)


def test_what_the_check_raises_ends_the_run() -> None:
    def server_died() -> None:
        raise KobartError("the server died")

    sleeper = PerfAnalyzer(path=Path("/bin/sleep"), env={}, version="")
    with before_patience_ends():
        with pytest.raises(KobartError, match="the server died"):
            sleeper.run([str(PATIENCE_S)], timeout_s=PATIENCE_S, check=server_died)
        with pytest.raises(PerfAnalyzerError, match=r"did not end within 0\.1 s"):
            sleeper.run([str(PATIENCE_S)], timeout_s=0.1)


def test_with_shared_memory_it_runs_alone(tmp_path: Path) -> None:
    log, program = tmp_path / "log", tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho begins >> {log}; sleep 0.3; echo ends >> {log}\n")
    program.chmod(0o755)
    analyzer = PerfAnalyzer(path=program, env={}, version="")
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(analyzer.run, ["--shared-memory=system"], PATIENCE_S) for _ in range(3)]
    assert all(run.result().returncode == 0 for run in runs)
    assert log.read_text().split() == ["begins", "ends"] * 3


def test_without_any_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(perf_analyzer, "_file_of", lambda package, pattern: None)
    with pytest.raises(ConfigError, match=r"none is on PATH.*pip install"):
        find_perf_analyzer()


def test_the_empty_placeholder_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "perf_analyzer-0.1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: perf-analyzer\nVersion: 0.1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(perf_analyzer, "_file_of", lambda package, pattern: None)
    with pytest.raises(ConfigError, match=r"perf-analyzer 0\.1\.0 is an empty placeholder"):
        find_perf_analyzer()
