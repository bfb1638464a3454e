"""Memory of the machine and of the container: how much is left, and how to give some back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

from kobart_runtime.control_groups import own_groups

_MEMINFO = Path("proc/meminfo")
_OWN_STATUS = Path("/proc/self/status")
_M_ARENA_MAX = -8  # glibc's malloc.h
# Version of cgroups -> its files of limit and use, and how it calls idle file pages, which count as
# used although they are given back on demand (Linux, admin-guide/cgroup-v2).
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def host_free_bytes(root: Path = Path("/")) -> int:
    """The least of what the machine and each control group around this process have left.

    A group without a limit, or one that cannot be read, does not count.

    Args:
        root: Where /proc and /sys lie.
    """
    groups = [left for group in own_groups("memory", root) for left in _of_group(*group)]
    return max(0, min([_of_machine(root), *groups]))


def own_peak_bytes() -> int:
    """The most that this process has had resident since it was started.

    `getrusage` would count what its parent had when it was started.
    """
    return 1024 * _field(_OWN_STATUS.read_text(encoding="ascii", errors="replace"), "VmHWM:")


def use_one_heap() -> None:
    """Have all threads of this process allocate from one heap; call it before they start.

    Else glibc gives each thread a heap of its own, and `give_back_freed` does not reach the free
    end of those. C libraries other than glibc have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back_freed() -> None:
    """Have the C library return to the machine what this process has freed and still holds.

    Its heap is full of holes after requests of many sizes. It takes milliseconds, so do it when
    there is nothing else to do. C libraries other than glibc need no such call, or have none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _of_machine(root: Path) -> int:
    """`MemAvailable`: free memory and what can be freed without swapping."""
    return 1024 * _field((root / _MEMINFO).read_text(encoding="ascii"), "MemAvailable:")


def _of_group(version: int, folder: Path) -> Iterator[int]:
    """What one group has left, or nothing if it has no limit."""
    limit_name, used_name, idle_name = _FILES[version]
    try:
        limit = int((folder / limit_name).read_text(encoding="ascii"))  # "max" is no number
        used = int((folder / used_name).read_text(encoding="ascii"))
        idle = _field((folder / "memory.stat").read_text(encoding="ascii"), idle_name)
    except (OSError, ValueError):
        return
    yield limit - used + idle


def _field(text: str, name: str) -> int:
    """The number after a name that begins a line."""
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    raise ValueError(f"no {name}")
