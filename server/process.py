"""The tritonserver process itself: its log, its end, and what it leaves behind."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from server import guardian
from server.log_stream import LogStream
from server.private_folder import PrivateFolder
from server.repository_api import ServerError

_END_S = 5.0


class ServerProcess:
    """A running server, which ends with this program even if this program is killed."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environment: dict[str, str],
        log: TextIO,
        hold_log: bool,
        shared_memory_prefix: str,
        private_folder: PrivateFolder,
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
        )
        self.pid = self._process.pid
        self._left_behind = (shared_memory_prefix, str(private_folder.path))
        self._guardian = self._start_guardian()
        self._has_ended = False
        assert self._process.stdout is not None
        self._log = LogStream(self._process.stdout, log, held=hold_log)

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
            if self._guardian.poll() is not None:  # somebody killed it
                self._guardian = self._start_guardian()
            return
        self._log.join(_END_S)
        self.show_log()
        raise ServerError(f"tritonserver died ({_describe_exit(code)})")

    def terminate(self, timeout_s: float) -> None:
        """Ask the server to end and wait for it."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def kill(self) -> None:
        """End the server and its models at once; does nothing if they have ended."""
        if self._has_ended:
            return
        guardian.end_session(self.pid, *self._left_behind)
        self._process.wait()
        # Once more after the last of them: models die on their own time.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guardian.communicate(timeout=_END_S)
        guardian.end_session(self.pid, *self._left_behind)  # it may have been killed
        self._log.join(_END_S)
        self._has_ended = True

    def _start_guardian(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-IS", guardian.__file__, str(self.pid), *self._left_behind],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )


def _describe_exit(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
