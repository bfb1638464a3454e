"""The control groups (containers) that this process is in, as Linux shows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_OWN_GROUPS = Path("proc/self/cgroup")
_MOUNT = Path("sys/fs/cgroup")


def own_groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Each group around this process that may limit it, from the innermost to the root.

    Args:
        controller: What is limited, such as "memory".
        root: Where /proc and /sys lie.

    Yields:
        The version of control groups, 1 or 2, and the group's folder. It need not exist: in a
        container the paths of groups may be those of the host, and the mount's root is then its
        own group.
    """
    try:
        lines = (root / _OWN_GROUPS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            version, mount = 2, root / _MOUNT
        elif controller in controllers.split(","):
            version, mount = 1, root / _MOUNT / controller
        else:
            continue
        own = PurePosixPath(path)
        for group in (own, *own.parents):
            yield version, mount / group.relative_to("/")
