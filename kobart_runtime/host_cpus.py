"""How many threads an engine should have: what this process may use of the machine's CPUs."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from kobart_runtime.control_groups import own_groups

_CPUS = Path("sys/devices/system/cpu")


@dataclass(frozen=True, kw_only=True)
class HostCpus:
    """What the process may use, and what there is."""

    num_cores: int  # physical cores of the machine
    num_allowed_cores: int  # physical cores that the process may run on
    quota: float  # CPUs' worth of time that its control groups allow; inf without a limit

    @classmethod
    def read(cls, root: Path = Path("/"), allowed: Collection[int] | None = None) -> HostCpus:
        """Ask the machine.

        Args:
            root: Where /proc and /sys lie.
            allowed: CPU numbers that the process may run on; None asks the kernel, which knows
                of cpusets and of `taskset`.
        """
        siblings = _siblings(root)
        allowed = os.sched_getaffinity(0) if allowed is None else allowed
        return cls(
            num_cores=len(set(siblings.values())) or os.cpu_count() or 1,
            # A CPU whose core is not known counts as a core.
            num_allowed_cores=max(1, len({siblings.get(cpu, str(cpu)) for cpu in allowed})),
            quota=min(_quotas(root), default=math.inf),
        )

    @property
    def limited_threads(self) -> int:
        """Threads for an engine, where it may have fewer than the machine has cores; else 0.

        A quota of 2.5 CPUs gives two threads: a third would have all of them stopped for a part of
        each period.
        """
        threads = max(1, int(min(self.num_allowed_cores, self.quota)))
        return threads if threads < self.num_cores else 0


def _siblings(root: Path) -> dict[int, str]:
    """CPU number -> the CPUs of its physical core, as the kernel lists them."""
    found = {}
    for folder in (root / _CPUS).glob("cpu[0-9]*"):
        try:
            siblings = (folder / "topology/thread_siblings_list").read_text(encoding="ascii")
        except OSError:
            continue
        found[int(folder.name.removeprefix("cpu"))] = siblings.strip()
    return found


def _quotas(root: Path) -> Iterator[float]:
    """CPUs' worth of time, of each group that has such a limit."""
    for version, folder in own_groups("cpu", root):
        try:
            if version == 2:  # "max 100000", or microseconds in each period of so many
                words = (folder / "cpu.max").read_text(encoding="ascii").split()
            else:  # -1 without a limit
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                words = [(folder / name).read_text(encoding="ascii") for name in names]
            quota_us, period_us = map(int, words)  # "max" is no number
        except (OSError, ValueError):
            continue
        if quota_us > 0 and period_us > 0:
            yield quota_us / period_us
