"""A thread that runs events one after another, some of them not before a while."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

Event = Callable[[], None]
_logger = logging.getLogger(__name__)


class Responder:
    """Runs events in the order of their times, and `poll` in between."""

    def __init__(self, poll: Event, interval_s: float) -> None:
        """Start the thread.

        Args:
            poll: Called about every `interval_s`, whether or not there are events.
            interval_s: Seconds between two polls.
        """
        self._poll = poll
        self._interval_s = interval_s
        self._changed = threading.Condition()  # guards _events and _closing
        self._events: list[tuple[float, int, Event]] = []  # a heap: time, order of put, event
        self._order = itertools.count()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="responder", daemon=True)
        self._thread.start()

    def put(self, event: Event, delay_s: float = 0.0) -> None:
        """Have an event run, at the earliest in `delay_s` seconds."""
        with self._changed:
            entry = (time.monotonic() + delay_s, next(self._order), event)
            self._changed.notify()  # first: what raises has put nothing
            heapq.heappush(self._events, entry)

    def close(self) -> None:
        """Run what was put, the delayed events too, then stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        next_poll_s = 0.0
        while True:
            event = self._next(until_s=next_poll_s)
            if event is not None:
                _run_event(event)
            elif self._closing and not self._events:
                return
            if time.monotonic() >= next_poll_s:
                _run_event(self._poll)
                next_poll_s = time.monotonic() + self._interval_s

    def _next(self, until_s: float) -> Event | None:
        """The next event whose time has come; None if there is none by `until_s`."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                if self._events and self._events[0][0] <= now_s:
                    return heapq.heappop(self._events)[2]
                if now_s >= until_s or (self._closing and not self._events):
                    return None
                due_s = self._events[0][0] if self._events else until_s
                self._changed.wait(min(due_s, until_s) - now_s)


def _run_event(event: Event) -> None:
    """Run an event; one that fails does not end the thread that all answers leave by."""
    try:
        event()
    except Exception:
        _logger.exception("an event of the responder failed")
