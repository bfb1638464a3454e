"""The python backend's model processes ("stubs"), as Linux shows them under /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STUB_NAME = "triton_python_backend_stub"


@dataclass(frozen=True)
class Stub:
    """One instance of one python model."""

    pid: int
    model: str

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs this model; a zombie does not."""
        return _read_stub(self.pid) == self


def find_stubs(server_pid: int) -> list[Stub]:
    """The living stubs of a server that leads a session of its own, by pid.

    The session tells whose they are even after the server's death.
    """
    pids = sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    members = (pid for pid in pids if _session(pid) == server_pid)
    return [stub for pid in members if (stub := _read_stub(pid))]


def _read_stub(pid: int) -> Stub | None:
    try:
        arguments = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    # stub, <repository>/<model>/<version>/model.py, ...
    command, model_file = (os.fsdecode(word) for word in (*arguments, b"")[:2])
    if Path(command).name != _STUB_NAME:
        return None
    return Stub(pid, Path(model_file).parent.parent.name)


def _session(pid: int) -> int:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # pid (name, which may hold blanks and brackets) state parent group session ...
    return int(stat.rpartition(")")[2].split()[3])
