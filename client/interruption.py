"""Ctrl-C at a moment of our choosing, so that no answer is lost half printed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """SIGINT while this is entered: raised where `allowed`, else when that is next reached.

    A second one is raised at once, wherever the program is.
    """

    def __init__(self) -> None:
        self._came = False
        self._is_allowed = False
        self._before: signal._HANDLER = None

    def __enter__(self) -> Interruption:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:  # a background job stays one
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Where it may be raised.

        Raises:
            KeyboardInterrupt: It came, now or before.
        """
        self._is_allowed = True
        try:
            if self._came:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_allowed = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        is_second, self._came = self._came, True
        if self._is_allowed or is_second:
            raise KeyboardInterrupt
