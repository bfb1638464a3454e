"""Free memory, of this machine and of made-up control groups."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kobart_runtime.host_memory import host_free_bytes
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE_S

GIBIBYTE = 1 << 30
Groups = dict[str, dict[str, str]]

V2: Groups = {
    "": {},  # the root has no limit
    "pods": {"memory.max": "max", "memory.current": "5", "memory.stat": "inactive_file 0"},
    "pods/ours": {
        "memory.max": str(3 * GIBIBYTE),
        "memory.current": str(2 * GIBIBYTE),
        "memory.stat": f"anon 7\ninactive_file {GIBIBYTE // 2}\n",
    },
}
V1: Groups = {
    "memory": {
        "memory.limit_in_bytes": str(3 * GIBIBYTE),
        "memory.usage_in_bytes": str(2 * GIBIBYTE),
        "memory.stat": f"inactive_file 1\ntotal_inactive_file {GIBIBYTE // 2}\n",
    },
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine with 4 GiB, whose control groups a test lays out."""
    (tmp_path / "proc/self").mkdir(parents=True)
    meminfo = f"MemTotal: 9 kB\nMemAvailable:    {4 * GIBIBYTE // 1024} kB\n"
    (tmp_path / "proc/meminfo").write_text(meminfo)
    return tmp_path


def lay_out(machine: Path, groups: Groups, own: str) -> None:
    (machine / "proc/self/cgroup").write_text(own)
    for name, files in groups.items():
        folder = machine / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)


@pytest.mark.parametrize(
    ("groups", "own"),
    [
        (V2, "0::/pods/ours\n"),
        (V2, "0::/pods/ours/inner\n"),  # a group without the memory controller
        (V1, "12:cpu,cpuacct:/x\n4:memory:/host/path/of/this/container\n0::/\n"),
    ],
)
def test_the_limit_of_a_group_counts(machine: Path, groups: Groups, own: str) -> None:
    lay_out(machine, groups, own)
    assert host_free_bytes(machine) == GIBIBYTE + GIBIBYTE // 2


@pytest.mark.parametrize("own", ["", "0::/\n", "0::/pods\n", "3:cpuset:/pods/ours\n"])
def test_without_a_limit_it_is_the_machines(machine: Path, own: str) -> None:
    lay_out(machine, V2, own)
    assert host_free_bytes(machine) == 4 * GIBIBYTE


def test_a_group_above_its_limit_has_nothing_left(machine: Path) -> None:
    full = {**V2["pods/ours"], "memory.current": str(9 * GIBIBYTE)}
    lay_out(machine, {"pods": {}, "pods/ours": full}, "0::/pods/ours\n")
    assert host_free_bytes(machine) == 0


def test_of_this_machine() -> None:
    total = Path("/proc/meminfo").read_text().split()[1]
    assert 0 < host_free_bytes() <= 1024 * int(total)


def test_memory_between_living_blocks_is_given_back() -> None:
    """What glibc keeps by itself: many small blocks freed below one that lives."""
    code = (
        "from kobart_runtime.host_memory import give_back_freed\n"
        "def resident():\n"
        "    line = next(x for x in open('/proc/self/status') if x.startswith('RssAnon'))\n"
        "    return int(line.split()[1])\n"
        "blocks = [bytes(50_000) + b'x' for _ in range(2000)]\n"
        "kept = blocks[::50]\n"
        "del blocks\n"
        "before = resident()\n"
        "give_back_freed()\n"
        "print(before - resident())\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50_000  # KiB, of nearly 100,000


@pytest.mark.parametrize(("one_heap", "kept_kib"), [(False, 25_000), (True, 0)])
def test_the_free_end_of_a_threads_heap_is_given_back(one_heap: bool, kept_kib: int) -> None:
    """With a heap for each thread, glibc keeps the free end of all but the first.

    How much it keeps grows with the largest block that was ever freed (mallopt(3)).
    """
    code = f"""
import threading
from kobart_runtime.host_memory import give_back_freed, use_one_heap

def resident_kib():
    line = next(x for x in open("/proc/self/status") if x.startswith("RssAnon"))
    return int(line.split()[1])

def work():
    large = bytes(20_000_000)
    del large
    blocks = [bytes(50_000) + b"x" for _ in range(600)]
    del blocks
    freed.set()
    looked.wait()

if {one_heap}:
    use_one_heap()
freed, looked = threading.Event(), threading.Event()
at_rest = resident_kib()
threading.Thread(target=work).start()
freed.wait()
give_back_freed()
print(resident_kib() - at_rest)
looked.set()
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert abs(int(done.stdout) - kept_kib) < 5_000


def test_own_peak_does_not_count_what_the_parent_had() -> None:
    """A process that has had 400 MB starts one that takes next to nothing."""
    ask = "from kobart_runtime.host_memory import own_peak_bytes; print(own_peak_bytes())"
    program = f"""
import subprocess, sys
had = bytearray(b"1") * 400_000_000
{ask}
sys.stdout.flush()
subprocess.run([sys.executable, "-c", {ask!r}], check=True)
"""
    asked = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    parent, child = map(int, asked.stdout.split())
    assert parent > 400e6
    assert child < 200e6
