"""Where and with what a measurement was made: it stands beside every figure."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from builders.manifest import cpu_name
from builders.paths import CHECKOUT

PACKAGES = ("numpy", "onnxruntime", "torch", "transformers")
# What ONNX Runtime's and PyTorch's kernels for the CPU differ by, as Linux names it.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True)
class Machine:
    """A machine and the versions on it."""

    cpu: str
    cores: int
    cpu_flags: tuple[str, ...]
    python: str
    versions: dict[str, str]
    commit: str  # of the checkout; "+" behind it: with changes
    date: str  # UTC

    @classmethod
    def here(cls) -> Machine:
        """This one, now."""
        return cls(
            cpu=cpu_name(),
            cores=len(os.sched_getaffinity(0)),
            cpu_flags=_cpu_flags(),
            python=platform.python_version(),
            versions={name: version(name) for name in PACKAGES},
            commit=_commit(),
            date=datetime.now(timezone.utc).date().isoformat(),
        )


def describe(machine: Mapping[str, Any]) -> str:
    """One line for people, of the fields of a `Machine`."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['date']}, commit {machine['commit']}; {machine['cores']} cores of "
        f"{machine['cpu']} ({' '.join(machine['cpu_flags'])}); Python {machine['python']}, "
        f"{versions}."
    )


def _cpu_flags() -> tuple[str, ...]:
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text(encoding="utf-8").split()) if cpuinfo.is_file() else set()
    return tuple(flag for flag in CPU_FLAGS if flag in words)


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ("git", *arguments), cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    return f"{git('rev-parse', '--short', 'HEAD')}{'+' if git('status', '--porcelain') else ''}"
