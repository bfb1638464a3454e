"""The machine that `benchmarks.gpu` runs on: what it lacks, and what its figures belong to."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from builders.gpu import Gpu, probe_gpu
from builders.paths import CHECKOUT
from builders.runtime_choice import missing_packages
from kobart_runtime.errors import BuildError, ConfigError

PACKAGES = (
    "kobart-triton", "torch", "transformers", "tensorrt", "polygraphy", "cuda-python", "numpy"
)  # fmt: skip
_DRIVER_QUERY = ("nvidia-smi", "--id=0", "--query-gpu=driver_version", "--format=csv,noheader")


def require_gpu() -> Gpu:
    """The GPU.

    Raises:
        ConfigError: There is none; says how to get one.
    """
    try:
        return probe_gpu()
    except BuildError as error:
        raise ConfigError(
            f"an NVIDIA GPU is missing: {error}; run this on a machine with a GPU and NVIDIA's "
            "driver"
        ) from error


def require_packages() -> None:
    """Look for what plans are built with, and for a PyTorch that sees the GPU.

    Raises:
        ConfigError: Something is missing; says how to get it.
    """
    missing = missing_packages()
    if not torch.cuda.is_available():
        missing.append(
            f"a PyTorch that sees the GPU, this is {torch.__version__} "
            "(https://pytorch.org/get-started names the one for your CUDA)"
        )
    if missing:
        raise ConfigError(f"this machine lacks {' and '.join(missing)}")


def describe_machine(gpu: Gpu) -> dict[str, Any]:
    """Everything that the figures depend on, for the report."""
    return {
        "gpu": {**asdict(gpu), "driver": _output(_DRIVER_QUERY)},
        "versions": {"python": sys.version.split()[0], **_versions()},
        "commit": _output(("git", "-C", str(CHECKOUT), "describe", "--always", "--dirty")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _output(command: tuple[str, ...]) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
