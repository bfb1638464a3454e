"""Passes a server's log on; holds it back while it is not yet known to be of interest."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import IO, TextIO

_MAX_HELD_LINES = 2000


class LogStream:
    """Copies lines from a process to a text stream in a thread of its own.

    A server that refuses a model says so several times over, between tables: while the log is
    held, the caller may still decide to say it in one line instead.
    """

    def __init__(self, source: IO[bytes], sink: TextIO, *, held: bool) -> None:
        self._source = source
        self._sink = sink
        self._lock = threading.Lock()
        self._held: deque[str] | None = deque(maxlen=_MAX_HELD_LINES) if held else None
        self._thread = threading.Thread(target=self._copy, name="server-log", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Pass on what was held, and from now on every line at once."""
        with self._lock:
            held, self._held = self._held or (), None
            for line in held:
                self._write(line)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the log, after its process has ended."""
        self._thread.join(timeout_s)

    def _copy(self) -> None:
        with self._source:
            for raw in self._source:
                line = raw.decode("utf-8", errors="replace")
                with self._lock:
                    if self._held is None:
                        self._write(line)
                    else:
                        self._held.append(line)

    def _write(self, line: str) -> None:
        # A reader that went away must not stop the server, whose pipe would fill up.
        with contextlib.suppress(OSError, ValueError):
            self._sink.write(line)
            self._sink.flush()
