"""Commands work from any working directory: what they read by default is found in the checkout."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli import main as bench
from benchmarks.gpu_variants import FULL, MINI
from builders.build_all import main as build_all
from builders.checkpoint import RANDOM_CHECKPOINT, load_checkpoint
from builders.manifest import _located
from builders.paths import DEFAULT_CHECKPOINT, DEFAULT_CHECKPOINT_FOLDER
from builders.special_ids import IdOverrides
from client.report.document import COMPLETE, read_report
from tests.commands import MODULES, all_parsers, options
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE_S
from tests.test_layering import PACKAGES, python_files

# Relative paths in the code -> why each may be.
RELATIVE = {
    "build/reports": "where a report goes unless it is told, as its help says",
    "backends/python/triton_python_backend_stub": "below Triton's installation",
    "bin/tritonserver": "below Triton's installation",
    "proc/meminfo": "below the root of a machine",
    "proc/self/cgroup": "below the root of a machine",
    "sys/devices/system/cpu": "below the root of a machine",
    "sys/fs/cgroup": "below the root of a machine",
}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that is no checkout."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def written_paths(path: Path) -> set[str]:
    """Constants that a file makes paths of, if they are relative."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        str(call.args[0].value)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id in ("Path", "open")
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and not Path(str(call.args[0].value)).is_absolute()
    }


def test_no_path_in_the_code_is_relative_to_the_working_directory() -> None:
    files = [file for package in PACKAGES for file in python_files(package)]
    assert set().union(*map(written_paths, files)) == set(RELATIVE)


def test_no_default_of_an_option_is_a_relative_path() -> None:
    defaults = {
        f"{parser.prog} {option.option_strings or option.dest}": option.default
        for parser in all_parsers()
        for option in options(parser)
        if isinstance(option.default, Path)
    }
    assert len(defaults) > 5
    assert not [name for name, default in defaults.items() if not default.is_absolute()]


@pytest.mark.parametrize("model", [MINI, FULL])
def test_documents_of_the_gpu_benchmark_are_found(model: object, elsewhere: Path) -> None:
    assert isinstance(model, type(MINI))
    assert Path(model.documents).is_file()
    assert model.test_documents is None or model.test_documents.is_file()


def test_a_build_of_the_default_checkpoint_is_compared_elsewhere(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, report = tmp_path / "built", tmp_path / "report"
    assert build_all(["--output", str(build), "--runtime", "onnxruntime"]) == 0
    manifest = json.loads((build / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["checkpoint"]["source"] == str(DEFAULT_CHECKPOINT_FOLDER)
    flags = ("--quick", "--no-peers", "--num-beams", "1", "--max-new-tokens", "16")
    assert bench(["compare", str(build), *flags, "--output", str(report)]) == 0
    assert read_report(report / "report.json").status == COMPLETE
    # A build of an earlier version names the checkpoint as it was asked for.
    manifest["checkpoint"]["source"] = DEFAULT_CHECKPOINT
    (build / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert bench(["compare", str(build), *flags, "--output", str(report)]) == 0


def test_a_manifest_names_a_checkpoint_for_every_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-checkpoint").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _located("my-checkpoint") == str(tmp_path / "my-checkpoint")
    assert _located(DEFAULT_CHECKPOINT) == str(DEFAULT_CHECKPOINT_FOLDER)
    assert _located("gogamza/kobart-base-v2") == "gogamza/kobart-base-v2"
    assert _located(RANDOM_CHECKPOINT) == RANDOM_CHECKPOINT


def test_the_default_checkpoint_loads_elsewhere(elsewhere: Path) -> None:
    assert load_checkpoint(DEFAULT_CHECKPOINT, IdOverrides()).trained


def test_benchmarks_start_elsewhere(elsewhere: Path) -> None:
    """As `python -m NAME --help`, all in one process, which imports torch once."""
    names = [name for name in MODULES if name.startswith("benchmarks.")]
    program = f"""
import runpy, sys

for name in {names}:
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert ended.code == 0, (name, ended.code)
"""
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.count("usage:") == len(names)
    assert not list(elsewhere.iterdir())
