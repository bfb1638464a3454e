from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from kobart_runtime.responder import Responder
from tests.patience import PATIENCE_S, wait_until


def nothing() -> None:
    pass


def test_events_run_in_the_order_of_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("kobart_runtime.responder.time", SimpleNamespace(monotonic=lambda: now_s))
    ran: list[str] = []
    responder = Responder(nothing, interval_s=0.01)
    responder.put(lambda: ran.append("late"), delay_s=0.1)
    for name in ("first", "second", "third"):
        responder.put(lambda name=name: ran.append(name))  # type: ignore[misc]
    wait_until(lambda: len(ran) == 3)
    now_s = 0.1
    responder.close()
    assert ran == ["first", "second", "third", "late"]


def test_a_delayed_event_waits_and_close_waits_for_it() -> None:
    times: list[float] = []
    responder = Responder(nothing, interval_s=10.0)
    put_s = time.monotonic()
    responder.put(lambda: times.append(time.monotonic()), delay_s=0.2)
    responder.close()
    assert times[0] - put_s >= 0.2


def test_an_event_does_not_wait_for_the_next_poll() -> None:
    ran = threading.Event()
    responder = Responder(nothing, interval_s=2 * PATIENCE_S)
    responder.put(ran.set)
    assert ran.wait(PATIENCE_S)
    responder.close()


def test_polls_go_on_without_events_and_end_with_close() -> None:
    polls: list[float] = []
    responder = Responder(lambda: polls.append(time.monotonic()), interval_s=0.01)
    while len(polls) < 3:
        time.sleep(0.005)
    responder.close()
    num_polls = len(polls)
    time.sleep(0.05)
    assert len(polls) == num_polls


def test_an_event_may_put_another() -> None:
    ran = threading.Event()
    responder = Responder(nothing, interval_s=60.0)
    responder.put(lambda: responder.put(ran.set))
    responder.close()
    assert ran.is_set()


def test_an_event_or_a_poll_that_fails_is_logged_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran = threading.Event()

    def fail() -> None:
        raise ValueError("a broken event")

    responder = Responder(fail, interval_s=0.01)
    responder.put(fail)
    responder.put(ran.set)
    assert ran.wait(PATIENCE_S)
    responder.close()
    assert "a broken event" in caplog.text
