"""The tritonserver process itself: its log, its end, and what it leaves behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from server.log_stream import LogStream
from server.repository_api import ServerError

_SHARED_MEMORY = Path("/dev/shm")
_LOG_END_S = 5.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ServerProcess:
    """A running server, killed with the thread that started it.

    A program that is killed therefore leaves no server behind that holds its ports.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: dict[str, str],
        log: TextIO,
        hold_log: bool,
        shared_memory_prefix: str,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A Ctrl-C in the terminal is ours to handle: the server would not drain.
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        assert self._process.stdout is not None
        self._log = LogStream(self._process.stdout, log, held=hold_log)
        self._shared_memory_prefix = shared_memory_prefix
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def show_log(self) -> None:
        """Pass on what was held of the log, and from now on every line."""
        self._log.release()

    def check(self) -> None:
        """Look whether the server still runs.

        Raises:
            ServerError: It does not; says how it ended.
        """
        code = self._process.poll()
        if code is None:
            return
        self._log.join(_LOG_END_S)
        self.show_log()
        raise ServerError(f"tritonserver died ({_describe_exit(code)})")

    def terminate(self, timeout_s: float) -> None:
        """Ask the server to end and wait for it."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def kill(self) -> None:
        """End the server and its models at once; does nothing if they have ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._remove_shared_memory()
        self._log.join(_LOG_END_S)

    def _remove_shared_memory(self) -> None:
        """Free what killed models leave in memory for ever."""
        for region in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            region.unlink(missing_ok=True)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _describe_exit(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
