"""What the front model's process holds, as Linux tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.stubs import find_stubs
from server.supervisor import TritonServer


@dataclass(frozen=True)
class Held:
    num_threads: int
    num_files: int


def process_of(server: TritonServer, model: str = "kobart") -> int:
    """The process id of a model."""
    (pid,) = (stub.pid for stub in find_stubs(server.pid) if stub.model == model)
    return pid


def held_by(server: TritonServer) -> Held:
    """Threads and open files."""
    process = Path(f"/proc/{process_of(server)}")
    return Held(len(list((process / "task").iterdir())), len(list((process / "fd").iterdir())))


def resident_bytes(server: TritonServer) -> int:
    """Memory that the process has touched and that no file on a disk is behind."""
    status = Path(f"/proc/{process_of(server)}/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return 1024 * sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem"))
