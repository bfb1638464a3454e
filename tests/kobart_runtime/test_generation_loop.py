"""The loop under trouble: every request ends exactly once, and its neighbours do not notice."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from kobart_runtime import generation_loop
from kobart_runtime.errors import (
    DeadlineExceededError,
    EngineError,
    OverloadedError,
    RequestCancelledError,
)
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import TokenIds
from kobart_runtime.request import Request
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings
from tests import reference
from tests.fakes import (
    RecordingListener,
    ScriptedModel,
    ScriptedRunner,
    scripted_config,
)
from tests.patience import PATIENCE_S, wait_until

VOCAB_SIZE = 40
IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=1)
MODEL = ScriptedModel(VOCAB_SIZE)
# No eos before the end: how many steps a request takes is known.
GREEDY = GenerationSettings(num_beams=1, max_new_tokens=6, min_new_tokens=6)
BEAMS = GenerationSettings(num_beams=3, max_new_tokens=6, min_new_tokens=6)

NewLoop = Callable[..., GenerationLoop]


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner(MODEL)


@pytest.fixture
def new_loop(runner: ScriptedRunner) -> Iterator[NewLoop]:
    """Opens loops that are closed, and left no thread, when the test ends."""
    loops: list[GenerationLoop] = []

    def new(**limits: Any) -> GenerationLoop:
        loops.append(GenerationLoop(runner, scripted_config(runner, IDS, **limits), Metrics()))
        return loops[-1]

    threads = set(threading.enumerate())
    yield new
    for loop in loops:
        loop.close()
        assert_empty(loop)
    assert set(threading.enumerate()) <= threads


class Gate:
    """Holds the loop's thread at a call until it is opened."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()

    def __call__(self, _: object) -> None:
        self._reached.set()
        assert self._opened.wait(PATIENCE_S)

    def wait_until_reached(self) -> None:
        assert self._reached.wait(PATIENCE_S)

    def open(self) -> None:
        self._opened.set()


def request(
    source: tuple[int, ...], settings: GenerationSettings, *, stream: bool = False
) -> tuple[Request, RecordingListener]:
    listener = RecordingListener()
    return Request(np.array(source, np.int32), settings, listener, stream), listener


def expected(source: tuple[int, ...], settings: GenerationSettings) -> Generated:
    return reference.generate(MODEL.of(source), settings, IDS)


def assert_empty(loop: GenerationLoop) -> None:
    assert loop.num_active == 0
    assert loop.num_waiting == 0


def test_abort_in_the_queue(runner: ScriptedRunner, new_loop: NewLoop) -> None:
    gate = Gate()
    runner.before_step = gate
    loop = new_loop(max_batch_size=1)
    first, first_listener = request((5, 6), GREEDY)
    waiting, waiting_listener = request((7, 8), GREEDY)
    loop.submit(first)
    gate.wait_until_reached()
    loop.submit(waiting)
    waiting.abort = RequestCancelledError("the caller cancelled the request")
    gate.open()
    with pytest.raises(RequestCancelledError, match="the caller cancelled"):
        waiting_listener.result()
    assert first_listener.result() == expected((5, 6), GREEDY)
    assert runner.encoded_batches == [(2,)]


def test_a_newcomer_is_stepped_first(runner: ScriptedRunner, new_loop: NewLoop) -> None:
    gate = Gate()
    runner.before_step = gate
    loop = new_loop()
    long, long_listener = request((5, 6), BEAMS)
    short, short_listener = request((7, 8), GREEDY)
    loop.submit(long)
    gate.wait_until_reached()
    loop.submit(short)
    gate.open()
    assert long_listener.result() == expected((5, 6), BEAMS)
    assert short_listener.result() == expected((7, 8), GREEDY)
    # Once it has a token they take turns in the order in which they came.
    assert [width for _, width in runner.step_sizes][:6] == [3, 1, 3, 3, 1, 3]


@pytest.mark.parametrize("settings", [GREEDY, BEAMS])
def test_abort_while_decoding(
    runner: ScriptedRunner, new_loop: NewLoop, settings: GenerationSettings
) -> None:
    aborted, aborted_listener = request((5, 6), settings)
    others = [request((7, number), settings) for number in range(3)]

    def abort_at_third_step(_: object) -> None:
        if runner.num_steps == 2:
            aborted.abort = DeadlineExceededError("too late")

    runner.before_step = abort_at_third_step
    loop = new_loop()
    held = Gate()
    runner.before_encode = held
    for submitted in [others[0][0], aborted, others[1][0], others[2][0]]:
        loop.submit(submitted)
    held.open()
    with pytest.raises(DeadlineExceededError, match="too late"):
        aborted_listener.result()
    for number, (_, listener) in enumerate(others):
        assert listener.result() == expected((7, number), settings)


def test_abort_after_the_end_changes_nothing(new_loop: NewLoop) -> None:
    loop = new_loop()
    ended, listener = request((5, 6), GREEDY)
    loop.submit(ended)
    listener.wait()
    ended.abort = RequestCancelledError("too late to matter")
    other, other_listener = request((5, 7), GREEDY)
    loop.submit(other)
    other_listener.wait()
    assert listener.num_ends == 1
    assert listener.error is None


@pytest.mark.parametrize("value", [3e38, -3e38, 2000.0, -2000.0])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_extreme_length_penalty_harms_nobody(
    new_loop: NewLoop, value: float, early_stopping: bool
) -> None:
    loop = new_loop()
    neighbour, neighbour_listener = request((5, 6), BEAMS)
    extreme = GenerationSettings(
        num_beams=3, max_new_tokens=12, length_penalty=value, early_stopping=early_stopping
    )
    odd, odd_listener = request((5, 7), extreme)
    loop.submit(neighbour)
    loop.submit(odd)
    assert 1 <= len(odd_listener.result().ids) <= 12
    assert neighbour_listener.result() == expected((5, 6), BEAMS)


@pytest.mark.parametrize("value", [1e-45, 1e-30, 1e30, 3e38])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_extreme_repetition_penalty_harms_nobody(
    new_loop: NewLoop, value: float, num_beams: int
) -> None:
    loop = new_loop()
    neighbour, neighbour_listener = request((5, 6), BEAMS)
    extreme = GenerationSettings(num_beams=num_beams, max_new_tokens=12, repetition_penalty=value)
    odd, odd_listener = request((5, 7), extreme)
    loop.submit(neighbour)
    loop.submit(odd)
    assert 1 <= len(odd_listener.result().ids) <= 12
    assert neighbour_listener.result() == expected((5, 6), BEAMS)


@pytest.mark.parametrize("num_beams", [1, 2, 5, 8])
@pytest.mark.parametrize("num_candidates", [2, 16])
def test_a_vocabulary_with_nothing_left_still_ends(num_beams: int, num_candidates: int) -> None:
    """Every token is struck out after six: `generate()` takes a struck out one and so on."""
    tiny = ScriptedRunner(ScriptedModel(6), num_candidates)
    loop = GenerationLoop(tiny, scripted_config(tiny, IDS), Metrics())
    listeners = []
    for number in range(6):
        settings = GenerationSettings(
            num_beams=num_beams, max_new_tokens=12, min_new_tokens=12, no_repeat_ngram_size=1
        )
        submitted, listener = request((number,), settings)
        loop.submit(submitted)
        listeners.append(listener)
    loop.close()
    for listener in listeners:
        assert 1 <= len(listener.result().ids) <= 12


def test_overload_names_count_limit_and_remedy(runner: ScriptedRunner, new_loop: NewLoop) -> None:
    gate = Gate()
    runner.before_encode = gate
    loop = new_loop(max_queue_size=2, max_batch_size=1)
    accepted = [request((5, number), GREEDY) for number in range(3)]
    loop.submit(accepted[0][0])
    gate.wait_until_reached()  # the first has left the queue
    loop.submit(accepted[1][0])
    loop.check_room()
    loop.submit(accepted[2][0])
    refused, refused_listener = request((5, 9), GREEDY)
    for refuse in (loop.check_room, lambda: loop.submit(refused)):
        with pytest.raises(OverloadedError, match="2 requests are waiting, limit 2") as caught:
            refuse()
        assert "--max-queue-size" in str(caught.value)
        assert caught.value.status_message.startswith("UNAVAILABLE: ")
    gate.open()
    for number, (_, listener) in enumerate(accepted):
        assert listener.result() == expected((5, number), GREEDY)
    assert refused_listener.num_ends == 0


def test_close_finishes_what_is_in_flight(runner: ScriptedRunner, new_loop: NewLoop) -> None:
    gate = Gate()
    runner.before_step = gate
    loop = new_loop(max_batch_size=2)
    submitted = [request((5, number), [GREEDY, BEAMS][number % 2]) for number in range(7)]
    for one, _ in submitted:
        loop.submit(one)
    gate.wait_until_reached()
    closing = threading.Thread(target=loop.close)
    closing.start()
    gate.open()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    for number, (one, listener) in enumerate(submitted):
        assert listener.num_ends == 1
        assert listener.result() == expected((5, number), one.settings)


def test_a_defect_in_the_loop_fails_who_is_in_it_and_the_loop_goes_on(new_loop: NewLoop) -> None:
    class Broken(RecordingListener):
        def on_tokens(self, ids: Sequence[int]) -> None:
            raise RuntimeError("a listener must not raise")

    loop = new_loop()
    listener = Broken()
    loop.submit(Request(np.array([5, 6], np.int32), GREEDY, listener, stream=True))
    with pytest.raises(EngineError, match="a listener must not raise"):
        listener.result()
    later, later_listener = request((5, 7), GREEDY)
    loop.submit(later)
    assert later_listener.result() == expected((5, 7), GREEDY)


def test_submit_after_close_is_refused(new_loop: NewLoop) -> None:
    loop = new_loop()
    loop.close()
    late, listener = request((5, 6), GREEDY)
    with pytest.raises(OverloadedError, match="the model is being unloaded"):
        loop.submit(late)
    assert listener.num_ends == 0
    loop.close()  # closing twice is harmless


def test_streaming_tells_each_token_once(new_loop: NewLoop) -> None:
    loop = new_loop()
    streamed, listener = request((5, 6), GREEDY, stream=True)
    loop.submit(streamed)
    result = listener.result()
    assert listener.pieces == [[token] for token in result.ids[:-1]]


def test_metrics_of_one_request(runner: ScriptedRunner) -> None:
    metrics = Metrics()
    loop = GenerationLoop(runner, scripted_config(runner, IDS, max_batch_size=4), metrics)
    submitted, listener = request((5, 6, 7), BEAMS)
    loop.submit(submitted)
    result = listener.result()
    loop.close()
    values = {name.removeprefix("kobart_"): v for name, v in metrics.snapshot().items()}
    assert values["slots"] == 4
    assert values["input_tokens"] == 3
    assert values["output_tokens"] == len(result.ids) == 6
    assert values["decode_steps"] == values["decode_step_requests"] == runner.num_steps == 6
    assert values["decode_step_rows"] == 18
    assert values["decode_batch_size"] == values["first_tokens"] == 1
    assert 0 < values["first_token_seconds"] < PATIENCE_S
    assert values["encode_seconds"] > 0
    assert values["decode_seconds"] > 0
    assert values["requests_active"] == values["requests_waiting"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_storm_of_submissions_and_aborts(
    runner: ScriptedRunner, new_loop: NewLoop, seed: int
) -> None:
    """Every request ends exactly once, whatever happens around it; no slot is lost."""
    rng = random.Random(seed)
    calls = 0

    def break_now_and_then(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 23 == 0:
            raise EngineError("the engine broke")

    runner.before_step = runner.before_encode = break_now_and_then
    loop = new_loop(max_batch_size=5, max_queue_size=40)
    accepted: list[tuple[Request, RecordingListener]] = []
    lock = threading.Lock()

    def submit_some(rng: random.Random) -> None:
        for _ in range(60):
            settings = GenerationSettings(
                num_beams=rng.choice([1, 1, 2, 4]), max_new_tokens=rng.randint(1, 12)
            )
            source = tuple(rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 80)))
            one = request(source, settings, stream=rng.random() < 0.5)
            try:
                loop.submit(one[0])
            except OverloadedError:
                time.sleep(0.01)
                continue
            with lock:
                accepted.append(one)
                victim = rng.choice(accepted)[0]
            if rng.random() < 0.3:
                victim.abort = RequestCancelledError("cancelled")
            time.sleep(rng.choice([0, 0, 0.001]))

    threads = [
        threading.Thread(target=submit_some, args=(random.Random(rng.random()),)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    loop.close()
    kinds = Counter(check_end(one, listener) for one, listener in accepted)
    assert set(kinds) == {"finished", "cancelled", "failed"}, kinds


def check_end(submitted: Request, listener: RecordingListener) -> str:
    assert listener.num_ends == 1
    if listener.error is None:
        source = tuple(submitted.input_ids.tolist())
        assert listener.generated == expected(source, submitted.settings)
        return "finished"
    if isinstance(listener.error, RequestCancelledError):
        assert submitted.abort is not None
        return "cancelled"
    assert str(listener.error) == "the engine broke"
    return "failed"


def test_freed_memory_is_given_back_once_when_idle(
    runner: ScriptedRunner, new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation_loop, "_IDLE_S", 0.05)
    loop = new_loop()
    for times in (1, 2, 3):  # at first there has been nothing to do
        wait_until(lambda: runner.num_gave_back >= times)  # noqa: B023
        time.sleep(0.15)
        assert runner.num_gave_back == times
        submitted, listener = request((5, times), GREEDY)
        loop.submit(submitted)
        assert listener.result() == expected((5, times), GREEDY)


@pytest.mark.parametrize("error", [EngineError("the engine broke"), RuntimeError("a defect")])
def test_memory_that_cannot_be_given_back_ends_nothing(
    runner: ScriptedRunner,
    new_loop: NewLoop,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(generation_loop, "_IDLE_S", 0.05)
    runner.before_give_back = refuse
    loop = new_loop()
    wait_until(lambda: runner.num_gave_back > 0)
    submitted, listener = request((5, 0), GREEDY)
    loop.submit(submitted)
    assert listener.result() == expected((5, 0), GREEDY)
