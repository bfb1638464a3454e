"""Ends a server whose owner was killed. A script: run by `server.process`, needs only Python.

A killed tritonserver may leave its models' processes behind, with their memory, and always
leaves its files in /dev/shm. The guardian holds one end of a pipe; its owner, the other: when the
owner is gone, for whatever reason, what it left is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def end_session(pid: int, shared_memory_prefix: str, private_folder: str) -> None:
    """Kill a server and its models, and free what they leave; nothing if all have ended.

    Args:
        pid: The server's, which leads a process group of its own.
        shared_memory_prefix: Of the names of its files in /dev/shm.
        private_folder: Its links to the builds and its key.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for region in SHARED_MEMORY.glob(f"{shared_memory_prefix}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(private_folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()  # until the owner closes its end, or ends
    end_session(int(sys.argv[1]), sys.argv[2], sys.argv[3])
