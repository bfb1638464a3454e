from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kobart_runtime.errors import ConfigError
from server.installation import find_installation

PRINT_BINARY = "from server.installation import find_installation as f; print(f().binary)"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kobart-triton"


def test_processes_that_prepare_it_at_once_get_the_same_server(own_cache: Path) -> None:
    def find(_: int) -> str:
        command = [sys.executable, "-c", PRINT_BINARY]
        return subprocess.check_output(command, cwd=Path(__file__).parents[2]).decode()

    with ThreadPoolExecutor(3) as pool:
        (binary,) = set(pool.map(find, range(3)))
    assert os.access(binary.strip(), os.X_OK)
    assert len(list(own_cache.iterdir())) == 1


def test_a_copy_that_lost_a_file_is_made_again() -> None:
    found = find_installation()
    assert found.backends is not None
    stub = found.backends / "python" / "triton_python_backend_stub"
    stub.unlink()
    assert find_installation() == found
    assert os.access(stub, os.X_OK)


def test_the_models_run_this_python() -> None:
    environment = find_installation().environment
    assert environment["PATH"].startswith(f"{Path(sys.executable).parent}{os.pathsep}")
    assert "nvidia_pytriton.libs" in environment["LD_LIBRARY_PATH"]
    assert "" not in environment["LD_LIBRARY_PATH"].split(os.pathsep)


def test_the_server_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "triton" / "bin" / "tritonserver"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    (tmp_path / "triton" / "backends").mkdir()
    monkeypatch.setenv("PATH", str(binary.parent))
    found = find_installation()
    assert (found.binary, found.backends) == (binary, tmp_path / "triton" / "backends")


@pytest.mark.parametrize("version", ["2.1.0", "none"])
def test_a_numpy_that_crashes_the_backend_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(ConfigError, match=rf"numpy {version}.*pip install 'numpy>=1.26,<2'"):
        find_installation()


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        find_installation()
