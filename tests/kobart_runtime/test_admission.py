"""Who fits: caches keep the budget, nobody waits for ever, and giants are refused."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kobart_runtime.admission import CacheBudget, Room, largest_room
from kobart_runtime.errors import InvalidArgumentError
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.host_kv_cache import HostKvCache
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import ModelShape, TokenIds
from kobart_runtime.model_runner import StepInputs
from kobart_runtime.request import Request
from kobart_runtime.scheduler import WaitingQueue
from kobart_runtime.settings import GenerationSettings
from tests import reference
from tests.fakes import ENTRY_BYTES, RecordingListener, ScriptedModel, ScriptedRunner
from tests.fakes import scripted_config as config_of

VOCAB_SIZE = 40
IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=1)
MODEL = ScriptedModel(VOCAB_SIZE)
MEBIBYTE = 1 << 20
ENTRIES_OF_A_MEBIBYTE = MEBIBYTE // ENTRY_BYTES


def new_request(source_len: int, num_beams: int, max_new_tokens: int, number: int = 0) -> Request:
    settings = GenerationSettings(num_beams=num_beams, max_new_tokens=max_new_tokens)
    source = np.arange(source_len, dtype=np.int32) * (number + 1) % VOCAB_SIZE
    return Request(source, settings, RecordingListener())


def listener_of(request: Request) -> RecordingListener:
    assert isinstance(request.listener, RecordingListener)
    return request.listener


def taken_by(runner: ScriptedRunner) -> int:
    caches = runner.caches
    return ENTRY_BYTES * sum(c.num_slots * (c.num_entries + c.source_len) for c in caches)


@pytest.mark.parametrize(
    ("dtype", "cross_dtype"),
    [(np.float16, np.float16), (np.float32, np.float32), (np.float32, np.uint8)],
)
@given(st.integers(0, 4), st.integers(0, 64), st.integers(0, 128))
def test_bytes_are_those_of_the_arrays(
    dtype: type, cross_dtype: type, num_slots: int, num_entries: int, source_len: int
) -> None:
    shape = ModelShape(
        num_decoder_layers=3, num_heads=2, head_dim=5, vocab_size=9, num_candidates=4
    )
    cache = HostKvCache(shape, dtype, num_slots, num_entries, source_len, cross_dtype)
    budget = CacheBudget(cache.entry_bytes, cache.source_bytes, max_bytes=1)
    arrays = (*cache.self_kv, *cache.cross_kv)
    room = Room(num_slots, num_entries, source_len)
    assert budget.bytes_of([room]) == sum(array.nbytes for array in arrays)


def test_the_largest_room_of_one_request() -> None:
    """8 beams of 100 tokens: 800 entries; both lengths rounded up."""
    assert largest_room(Room(), [new_request(65, 8, 101)]) == (1, 832, 128)
    assert largest_room(Room(), []) == Room()


def test_the_largest_room_of_many_is_as_long_as_the_longest_needs() -> None:
    requests = [new_request(65, 1, 10), new_request(10, 2, 50), new_request(5, 1, 1)]
    assert largest_room(Room(2, 64, 64), requests) == (4, 128, 128)  # slots double
    assert largest_room(Room(8, 256, 512), requests) == (8, 256, 512)  # none is given back


@pytest.mark.parametrize("seed", range(2))
def test_caches_never_come_to_more_than_the_budget(seed: int) -> None:
    rng = random.Random(seed)
    runner = ScriptedRunner(MODEL)
    metrics = Metrics()
    most = 0

    def measure(_: StepInputs) -> None:
        nonlocal most
        most = max(most, taken_by(runner))
        assert taken_by(runner) <= MEBIBYTE

    runner.before_step = measure
    loop = GenerationLoop(runner, config_of(runner, IDS, max_cache_mib=1), metrics)
    requests = [
        new_request(rng.randint(1, 500), rng.choice([1, 2, 3]), rng.randint(1, 40), number)
        for number in range(60)
    ]
    for request in requests:
        loop.submit(request)
    loop.close()
    for request in requests:
        source = tuple(request.input_ids.tolist())
        expected = reference.generate(MODEL.of(source), request.settings, IDS)
        assert listener_of(request).result() == expected
    assert most > MEBIBYTE // 2, "the budget was used"
    values = metrics.snapshot()
    assert values["kobart_cache_bytes"] == 0
    assert values["kobart_cache_limit_bytes"] == MEBIBYTE


def test_many_small_or_few_large_requests_are_decoded_together() -> None:
    sizes = {}
    for source_len, max_new_tokens in ((64, 32), (448, 64)):
        runner = ScriptedRunner(MODEL)
        loop = GenerationLoop(runner, config_of(runner, IDS, max_cache_mib=1), Metrics())
        for number in range(40):
            loop.submit(new_request(source_len, 1, max_new_tokens, number))
        loop.close()
        sizes[source_len] = max(rows for rows, _ in runner.step_sizes)
    # 1024 entries in all: 10 x (64 + 32) fit, or 8 if the slots are doubled; 2 x (448 + 64) fit.
    assert sizes[64] in (8, 9, 10)
    assert sizes[448] == 2


def test_one_that_could_never_fit_is_refused_with_what_it_needs() -> None:
    runner = ScriptedRunner(MODEL)
    loop = GenerationLoop(runner, config_of(runner, IDS, max_cache_mib=1), Metrics())
    just_fits = new_request(512, 4, 128)
    assert largest_room(Room(), [just_fits]).num_entries == ENTRIES_OF_A_MEBIBYTE - 512
    loop.submit(just_fits)
    too_large = new_request(513, 4, 128)
    with pytest.raises(InvalidArgumentError) as caught:
        loop.submit(too_large)
    assert str(caught.value) == (
        "513 source tokens and 4 beams of 128 new tokens take up to 1.1 MiB of keys and values, "
        "limit 1.0: ask for fewer beams or new tokens, shorten the text, or serve with a larger "
        "--max-cache-mib"
    )
    assert caught.value.status_message.startswith("INVALID_ARGUMENT: ")
    loop.close()
    assert listener_of(just_fits).result()
    assert listener_of(too_large).num_ends == 0


def test_without_a_limit_it_is_half_of_what_is_free() -> None:
    runner = ScriptedRunner(MODEL)
    metrics = Metrics()
    GenerationLoop(runner, config_of(runner, IDS), metrics).close()
    assert metrics.snapshot()["kobart_cache_limit_bytes"] == runner.free_bytes() / 2


@pytest.mark.parametrize("num_sharing", [1, 2, 3])
def test_models_of_one_server_share_the_free_memory(num_sharing: int) -> None:
    runner = ScriptedRunner(MODEL)
    loop = GenerationLoop(runner, config_of(runner, IDS), Metrics(), num_sharing)
    assert loop.max_cache_bytes == runner.free_bytes() // (2 * num_sharing)
    loop.close()
    limited = GenerationLoop(
        runner, config_of(runner, IDS, max_cache_mib=7), Metrics(), num_sharing
    )
    assert limited.max_cache_bytes == 7 * MEBIBYTE  # what was asked for is each model's own
    limited.close()


def test_the_oldest_is_not_overtaken_for_ever() -> None:
    """A large one gets its turn although small ones keep coming."""
    runner = ScriptedRunner(MODEL)
    loop = GenerationLoop(runner, config_of(runner, IDS, max_cache_mib=1), Metrics())
    large = new_request(800, 1, 100, number=7)
    stopped = threading.Event()
    small: list[Request] = []

    def keep_coming(_: StepInputs) -> None:
        if len(small) < 500 and not stopped.is_set():
            small.append(new_request(10, 1, 8, number=len(small)))
            loop.submit(small[-1])

    runner.before_step = keep_coming
    keep_coming(StepInputs(*[np.zeros(0)] * 4))
    loop.submit(large)
    listener_of(large).wait()
    stopped.set()
    loop.close()
    assert len(small) < 500
    assert all(listener_of(request).num_ends == 1 for request in small)


def takers(*fitting: int) -> Callable[[list[Request]], bool]:
    """Says that these many requests fit, and no other number of them."""
    return lambda requests: len(requests) in fitting


def test_take_asks_for_each_one_that_joins() -> None:
    queue = WaitingQueue(10)
    requests = [new_request(9, 1, 8, number) for number in range(4)]
    for request in requests:
        queue.append(request)
    assert queue.take(4, idle=True, fits=takers()) == []
    assert queue.take(4, idle=True, fits=takers(1, 2)) == requests[:2]
    assert queue.take(4, idle=True, fits=takers(1)) == requests[2:3]


def test_what_is_put_back_is_taken_first_and_alone() -> None:
    queue = WaitingQueue(10)
    requests = [new_request(9, 1, 8, number) for number in range(6)]
    for request in requests[2:]:
        queue.append(request)
    queue.put_back(requests[:2])
    order = []
    while taken := queue.take(8, idle=True, fits=lambda _: True):
        order.append(taken)
    assert order == [requests[:1], requests[1:2], requests[2:]]
