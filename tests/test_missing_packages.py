"""Every command under a Python that lacks packages: one line that says how to get them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import CONSOLE_SCRIPTS
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE_S

PROGRAM = """
import importlib, os, runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv = [TARGET, *ARGUMENTS]
if TARGET.endswith(".py"):
    runpy.run_path(TARGET, run_name="__main__")
else:
    sys.exit(importlib.import_module(TARGET).main())
"""
# What each command is given, so that it gets as far as it can.
ARGUMENTS = {
    "kobart-bench": ["compare", "build/none"],
    "kobart-build": ["--output", "out"],
    "kobart-check-plans": ["build/none"],
    "kobart-evaluate": ["build/none", "--data", "none.jsonl"],
    "kobart-finetune": ["--train", "none.jsonl", "--output", "out"],
    "kobart-health": [],
    "kobart-serve": ["build/none"],
    "kobart-summarize": ["none.txt"],
}
EVERYTHING = (
    *("accelerate", "google", "grpc", "matplotlib", "numpy", "onnx", "onnxruntime", "tokenizers"),
    *("torch", "tqdm", "transformers", "tritonclient", "yaml"),
)


def run(target: str, arguments: list[str], blocked: tuple[str, ...], folder: Path) -> str:
    """Standard error of a command that must fail."""
    head = f"BLOCKED, TARGET, ARGUMENTS = {blocked!r}, {target!r}, {arguments!r}\n"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            head + f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})" + PROGRAM,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode in (1, 2), done.stderr
    return done.stderr


def test_every_command_is_tried() -> None:
    assert set(ARGUMENTS) == set(CONSOLE_SCRIPTS)


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_a_command_without_packages_ends_with_one_line(name: str, tmp_path: Path) -> None:
    """`kobart-serve` itself needs none, and says what is wrong with its build."""
    said = run(CONSOLE_SCRIPTS[name], ARGUMENTS[name], EVERYTHING, tmp_path)
    (line,) = said.splitlines()
    assert line.startswith(("error: ", f"{name}: "))
    assert name == "kobart-serve" or "pip install" in line


@pytest.mark.parametrize("package", ["numpy", "torch", "transformers", "yaml"])
def test_the_build_run_as_a_file_names_the_package(package: str, tmp_path: Path) -> None:
    said = run(str(REPOSITORY / "builders" / "build_all.py"), [], (package,), tmp_path)
    (line,) = said.splitlines()
    assert line.startswith(
        f"error: kobart-build needs the package {package}, which {sys.executable}"
    )
    assert line.endswith("pip install -e '.[build]' in the checkout")
