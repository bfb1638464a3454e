"""Who is encoded next, and with whom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kobart_runtime.errors import OverloadedError, RequestCancelledError
from kobart_runtime.request import Request
from kobart_runtime.scheduler import WaitingQueue, pad_sources
from kobart_runtime.settings import GenerationSettings
from tests.fakes import RecordingListener

BUDGETS = {True: 4096, False: 1024}  # padded tokens when idle, and between steps


def request(source_len: int) -> Request:
    source = np.arange(1, source_len + 1, dtype=np.int32)
    return Request(source, GenerationSettings(), RecordingListener())


def anybody(_: list[Request]) -> bool:
    return True


def queue_of(requests: list[Request], max_size: int = 1000) -> WaitingQueue:
    queue = WaitingQueue(max_size)
    for one in requests:
        queue.append(one)
    return queue


@given(st.lists(st.integers(1, 1500), max_size=40), st.integers(-1, 40), st.booleans())
def test_take(lengths: list[int], num_slots: int, idle: bool) -> None:
    requests = [request(length) for length in lengths]
    queue = queue_of(requests)
    batch = queue.take(num_slots, idle=idle, fits=anybody)

    assert [r for r in requests if r in batch] == batch, "the order of arrival is kept"
    assert list(queue) == [r for r in requests if r not in batch], "nothing is lost"
    assert len(batch) <= max(0, num_slots)
    if not requests or num_slots < 1:
        assert batch == []
        return
    assert batch[0] is requests[0], "the oldest never waits for others"
    taken = [one.source_len for one in batch]
    assert min(taken) >= 0.75 * max(taken)
    assert len(taken) == 1 or max(taken) * len(taken) <= BUDGETS[idle]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60))
def test_taking_again_and_again_empties_the_queue(lengths: list[int]) -> None:
    queue = queue_of([request(length) for length in lengths])
    num_taken = 0
    while batch := queue.take(8, idle=False, fits=anybody):
        num_taken += len(batch)
    assert num_taken == len(lengths)
    assert len(queue) == 0


def test_equal_lengths_fill_the_budget() -> None:
    queue = queue_of([request(100) for _ in range(60)])
    assert len(queue.take(50, idle=True, fits=anybody)) == 40
    assert len(queue.take(50, idle=False, fits=anybody)) == 10
    assert len(queue.take(3, idle=False, fits=anybody)) == 3


def test_a_longer_one_may_join_and_a_far_longer_one_not() -> None:
    requests = [request(length) for length in (90, 400, 120, 60, 100)]
    queue = queue_of(requests)
    assert queue.take(8, idle=True, fits=anybody) == [requests[0], requests[2], requests[4]]
    assert queue.take(8, idle=True, fits=anybody) == [requests[1]]


@given(st.lists(st.booleans(), max_size=30))
def test_remove_aborted(is_aborted: list[bool]) -> None:
    requests = [request(3) for _ in is_aborted]
    for one, aborted in zip(requests, is_aborted, strict=True):
        if aborted:
            one.abort = RequestCancelledError("gone")
    queue = queue_of(requests)
    assert queue.remove_aborted() == [r for r in requests if r.abort]
    assert list(queue) == [r for r in requests if not r.abort]
    assert queue.remove_aborted() == []


def test_a_full_queue_refuses() -> None:
    queue = queue_of([request(1)], max_size=2)
    queue.check_room()
    queue.append(request(1))
    with pytest.raises(OverloadedError, match="2 requests are waiting, limit 2: try again later"):
        queue.check_room()
    queue.take(1, idle=True, fits=anybody)
    queue.check_room()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_pad_sources(lengths: list[int]) -> None:
    input_ids, attention_mask = pad_sources([request(length) for length in lengths], 99)
    assert input_ids.shape == attention_mask.shape == (len(lengths), max(lengths))
    assert input_ids.dtype == attention_mask.dtype == np.int32
    for ids, mask, length in zip(input_ids, attention_mask, lengths, strict=True):
        padding = max(lengths) - length
        assert ids.tolist() == [*range(1, length + 1), *[99] * padding]
        assert mask.tolist() == [1] * length + [0] * padding
