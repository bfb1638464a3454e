"""Memory of the machine and of the container: how much is left, and how to give some back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS = Path("/proc/self/cgroup")
_M_ARENA_MAX = -8  # glibc's malloc.h
_MOUNT = Path("/sys/fs/cgroup")
# Version of cgroups -> its mount, its files of limit and use, and how it calls idle file pages,
# which count as used although they are given back on demand (Linux, admin-guide/cgroup-v2).
_VERSIONS = {
    1: (_MOUNT / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: (_MOUNT, "memory.max", "memory.current", "inactive_file"),
}


def host_free_bytes() -> int:
    """The least of what the machine and each control group around this process have left.

    A group without a limit, or one that cannot be read, does not count.
    """
    return max(0, min([_of_machine(), *_of_groups()]))


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


def _of_machine() -> int:
    """`MemAvailable`: free memory and what can be freed without swapping."""
    return 1024 * _field(_MEMINFO.read_text(encoding="ascii"), "MemAvailable:")


def _of_groups() -> Iterator[int]:
    for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        version = 2 if not controllers else 1 if "memory" in controllers.split(",") else 0
        if version in _VERSIONS:
            own = PurePosixPath(path)
            for group in (own, *own.parents):
                yield from _of_group(version, group)


def _of_group(version: int, group: PurePosixPath) -> Iterator[int]:
    """What one group has left, or nothing if it has no limit.

    In a container the paths of groups may be those of the host; the mount's root is then its own.
    """
    mount, limit_name, used_name, idle_name = _VERSIONS[version]
    folder = mount / group.relative_to("/")
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
