"""The machine a figure comes from, and how quiet it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PACKAGES = (
    "kobart-triton",
    "nvidia-pytriton",
    "tritonclient",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "torch",
    "transformers",
    "tokenizers",
    "ctranslate2",
    "kiwipiepy",
    "numpy",
)
# What the kernels of ONNX Runtime and PyTorch differ by, as Linux names it.
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CHECKOUT = Path(__file__).resolve().parents[2]
_UNKNOWN = "unknown"
_QUERY_LIMIT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What stands at the head of every report."""

    date: str  # ISO 8601, UTC
    commit: str  # of the checkout; "+changes" where it is not what was committed
    cpu: str
    cpu_flags: str  # instruction sets that products are computed with
    num_cores: int
    memory_gb: float
    gpu: str  # empty: none
    system: str
    python: str
    governor: str  # of the CPU's clock; anything but "performance" lets it wander
    versions: dict[str, str]

    @classmethod
    def read(cls) -> Machine:
        """Ask the system."""
        return cls(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=_commit(),
            cpu=_field("/proc/cpuinfo", "model name") or platform.machine(),
            cpu_flags=_cpu_flags(),
            num_cores=len(os.sched_getaffinity(0)),
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            gpu=_gpu(),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            governor=_governor(),
            versions=dict(_versions()),
        )


class Quietness:
    """How much of the CPU others took, from its making on."""

    def __init__(self) -> None:
        self._start = _cpu_ticks()

    def read(self) -> dict[str, float]:
        """`steal_percent`, taken by other guests of the host, and the load of the last minute."""
        ticks = [now - then for now, then in zip(_cpu_ticks(), self._start, strict=True)]
        steal = ticks[7] if len(ticks) > 7 else 0
        return {
            "steal_percent": round(100 * steal / max(1, sum(ticks)), 2),
            "load_average": round(os.getloadavg()[0], 2),
        }


def _cpu_ticks() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user's."""
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    return [int(field) for field in first.split()[1:9]]


def _field(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _cpu_flags() -> str:
    known = _field("/proc/cpuinfo", "flags").split()
    return " ".join(flag for flag in _CPU_FLAGS if flag in known)


def _governor() -> str:
    try:
        return _GOVERNOR.read_text(encoding="ascii").strip()
    except OSError:
        return "not told by this machine"


def _versions() -> Iterator[tuple[str, str]]:
    for name in _PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _commit() -> str:
    commit = _output("git", "-C", str(_CHECKOUT), "rev-parse", "--short=12", "HEAD")
    if not commit:
        return _UNKNOWN
    # What a measurement writes is no change to what is measured.
    paths = ("--", ".", ":!docs/measurements")
    changes = _output("git", "-C", str(_CHECKOUT), "status", "--porcelain", "-uno", *paths)
    return f"{commit}+changes" if changes else commit


def _gpu() -> str:
    return _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").partition("\n")[0]


def _output(*command: str) -> str:
    """What a program prints; empty if it is missing or fails."""
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_QUERY_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
