"""Threads for the engines, on made-up machines and in made-up control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from kobart_runtime.host_cpus import HostCpus

EIGHT = range(8)  # CPUs of four cores: 0 and 4 share one, 1 and 5, ...
HALF_A_PERIOD = "50000"
V1_UNLIMITED = {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}


def machine(root: Path, own: str, groups: Mapping[str, Mapping[str, str]]) -> Path:
    """Four cores of two CPUs each, and control groups by folder."""
    for cpu in EIGHT:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    (root / "sys/devices/system/cpu/cpufreq").mkdir()
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    for name, files in groups.items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
    return root


@pytest.mark.parametrize(
    ("own", "groups", "quota"),
    [
        ("0::/\n", {"": {}}, math.inf),
        ("0::/pods/ours\n", {"pods/ours": {"cpu.max": "max 100000\n"}}, math.inf),
        ("0::/pods/ours\n", {"pods/ours": {"cpu.max": "200000 100000\n"}}, 2.0),
        # The limit of a pod around a container that has none, and the least of two.
        ("0::/pods/ours\n", {"pods": {"cpu.max": "150000 100000\n"}, "pods/ours": {}}, 1.5),
        (
            "0::/pods/ours\n",
            {"pods": {"cpu.max": "90000 30000"}, "pods/ours": {"cpu.max": "400000 100000"}},
            3.0,
        ),
        # In a container: its own group is the mount's root, whatever the path says.
        ("0::/host/path\n", {"": {"cpu.max": "250000 100000\n"}}, 2.5),
        ("5:cpu,cpuacct:/x\n0::/\n", {"cpu": V1_UNLIMITED}, math.inf),
        (
            "5:cpu,cpuacct:/x\n0::/\n",
            {"cpu": V1_UNLIMITED, "cpu/x": {**V1_UNLIMITED, "cpu.cfs_quota_us": "300000\n"}},
            3.0,
        ),
        ("5:cpuset:/x\n", {"cpu": {**V1_UNLIMITED, "cpu.cfs_quota_us": "300000\n"}}, math.inf),
        ("0::/\n", {"": {"cpu.max": "garbage\n"}}, math.inf),
    ],
)
def test_the_quota_of_the_groups(
    tmp_path: Path, own: str, groups: dict[str, dict[str, str]], quota: float
) -> None:
    assert HostCpus.read(machine(tmp_path, own, groups), EIGHT).quota == quota


@pytest.mark.parametrize(
    ("quota_us", "allowed", "threads"),
    [
        ("max", EIGHT, 0),  # all four cores: the engines' own choice
        ("800000", EIGHT, 0),
        ("400000", EIGHT, 0),
        ("399999", EIGHT, 3),
        ("250000", EIGHT, 2),
        (HALF_A_PERIOD, EIGHT, 1),
        ("max", {0, 4}, 1),  # two CPUs of one core
        ("max", {0, 1, 4, 5}, 2),
        ("max", {0, 1, 2, 3}, 0),
        ("250000", {3, 7}, 1),
    ],
)
def test_threads_are_what_quota_and_cpuset_leave(
    tmp_path: Path, quota_us: str, allowed: Collection[int], threads: int
) -> None:
    root = machine(tmp_path, "0::/ours\n", {"ours": {"cpu.max": f"{quota_us} 100000\n"}})
    cpus = HostCpus.read(root, allowed)
    assert cpus.num_cores == 4
    assert cpus.limited_threads == threads


def test_a_machine_that_does_not_tell_of_its_cores(tmp_path: Path) -> None:
    """As some sandboxes: CPUs count as cores, and no group is known."""
    cpus = HostCpus.read(tmp_path, {0})
    assert cpus == HostCpus(num_cores=os.cpu_count() or 1, num_allowed_cores=1, quota=math.inf)


def test_of_this_machine() -> None:
    cpus = HostCpus.read()
    assert 1 <= cpus.num_allowed_cores <= len(os.sched_getaffinity(0))
    assert cpus.num_allowed_cores <= cpus.num_cores
    assert 0 <= cpus.limited_threads < max(2, cpus.num_cores)
