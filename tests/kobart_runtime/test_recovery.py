"""A failing engine: what failed in company is decoded again alone, and only the culprit fails."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from kobart_runtime.admission import Room
from kobart_runtime.beam_search import BeamSearch
from kobart_runtime.decode_batch import DecodeBatch, Sequence
from kobart_runtime.decode_batches import DecodeBatches
from kobart_runtime.errors import EngineError, KobartError, RequestCancelledError
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.greedy_search import GreedySearch
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import TokenIds
from kobart_runtime.model_runner import StepInputs, StepOutput
from kobart_runtime.request import Request
from kobart_runtime.scheduler import WaitingQueue, pad_sources
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings
from tests import reference
from tests.fakes import (
    RecordingListener,
    ScriptedCache,
    ScriptedModel,
    ScriptedRunner,
    scripted_config,
)

VOCAB_SIZE = 40
IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=1)
MODEL = ScriptedModel(VOCAB_SIZE)
GREEDY = GenerationSettings(num_beams=1, max_new_tokens=8, min_new_tokens=8)
BEAMS = GenerationSettings(num_beams=3, max_new_tokens=8, min_new_tokens=8)
POISON = 39  # a source token
ERRORS = [EngineError("the engine broke"), ValueError("odd shape"), MemoryError()]


class PoisonedRunner(ScriptedRunner):
    """Raises wherever the poison is, or at chosen calls."""

    def __init__(self, error: Exception, *, encode_fails: bool = False, step: int = 99) -> None:
        super().__init__(MODEL)
        self.error = error
        self._encode_fails = encode_fails
        self._failing_step = step  # of a batch that holds the poison
        self.failing_calls: Iterator[bool] = itertools.repeat(False)  # of decode_step

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[tuple[int, ...]]:
        if self._encode_fails and POISON in input_ids:
            raise self.error
        return super().encode(input_ids, attention_mask)

    def decode_step(
        self, cache: ScriptedCache, inputs: StepInputs, *, want_logits: bool
    ) -> StepOutput:
        sources = cache.sources[: len(inputs.position_ids)]
        steps = [
            step
            for source, step in zip(sources, inputs.position_ids[:, 0], strict=True)
            if POISON in source
        ]
        output = super().decode_step(cache, inputs, want_logits=want_logits)
        if self._failing_step in steps or next(self.failing_calls):
            raise self.error  # the cache has been written
        return output


class Loop:
    """A loop over a runner; leaving it checks that nothing is left."""

    def __init__(self, runner: ScriptedRunner) -> None:
        self.metrics = Metrics()
        self._loop = GenerationLoop(runner, scripted_config(runner, IDS), self.metrics)

    def run(self, *requests: Request) -> None:
        """Submit at once, and wait for all."""
        with self._loop._changed:  # the loop sees none before it sees all
            for request in requests:
                self._loop.submit(request)
        for request in requests:
            listener_of(request).wait()

    @property
    def batches(self) -> DecodeBatches:
        return self._loop._batches

    def close(self) -> dict[str, float]:
        self._loop.close()
        assert self._loop.num_active == self._loop.num_waiting == 0
        return self.metrics.snapshot()


def new_request(
    number: int, settings: GenerationSettings, *, poisoned: bool = False, stream: bool = False
) -> Request:
    source = (5, number, POISON if poisoned else 6)
    return Request(np.array(source, np.int32), settings, RecordingListener(), stream)


def listener_of(request: Request) -> RecordingListener:
    assert isinstance(request.listener, RecordingListener)
    return request.listener


def outcome(request: Request) -> Generated | KobartError | None:
    listener = listener_of(request)
    assert listener.num_ends == 1
    return listener.error or listener.generated


def expected(request: Request) -> Generated:
    source = request.input_ids.tolist()
    return reference.generate(MODEL.of(source), request.settings, IDS)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("settings", [GREEDY, BEAMS])
@pytest.mark.parametrize("where", [{"encode_fails": True}, {"step": 0}, {"step": 5}], ids=str)
def test_the_poisoned_request_fails_alone(
    where: dict[str, int], settings: GenerationSettings, stream: bool, error: Exception
) -> None:
    loop = Loop(PoisonedRunner(error, **where))  # type: ignore[arg-type]
    poisoned = new_request(9, settings, poisoned=True, stream=stream)
    others = [new_request(number, settings, stream=stream) for number in range(5)]
    loop.run(*others[:3], poisoned, *others[3:])
    told = outcome(poisoned)
    assert isinstance(told, EngineError)
    assert str(error) in str(told)
    for other in others:
        assert outcome(other) == expected(other)
        if stream:  # each token once, whatever had been told before the failure
            ids = expected(other).ids
            assert tuple(listener_of(other).streamed) == ids[: len(listener_of(other).streamed)]
    values = loop.close()
    assert values["kobart_requests_retried"] == 6
    assert values["kobart_first_tokens"] == 5 + ("encode_fails" not in where and where["step"] > 0)
    assert values["kobart_output_tokens"] == 8 * 5


def test_a_failure_that_passes_fails_nobody() -> None:
    runner = PoisonedRunner(EngineError("the engine broke"))
    runner.failing_calls = iter([False, False, False, True, *[False] * 1000])
    loop = Loop(runner)
    requests = [new_request(number, BEAMS, stream=number % 2 == 0) for number in range(6)]
    loop.run(*requests)
    for request in requests:
        assert outcome(request) == expected(request)
    loop.close()


def test_a_failing_batch_leaves_other_widths_alone() -> None:
    runner = PoisonedRunner(EngineError("the engine broke"), step=3)
    loop = Loop(runner)
    beams = [new_request(number, BEAMS) for number in range(3)]
    greedy = [new_request(number, GREEDY, poisoned=number == 2) for number in range(3)]
    loop.run(*beams, *greedy)
    assert [outcome(request) for request in beams] == [expected(request) for request in beams]
    assert [outcome(request) for request in greedy[:2]] == [expected(r) for r in greedy[:2]]
    assert loop.close()["kobart_requests_retried"] == 3
    assert {width: rows for rows, width in sorted(runner.step_sizes)} == {1: 3, 3: 3}


def test_an_engine_that_is_gone_fails_everybody_once() -> None:
    runner = PoisonedRunner(EngineError("the device is lost"))
    runner.failing_calls = itertools.repeat(True)
    loop = Loop(runner)
    requests = [new_request(number, (GREEDY, BEAMS)[number % 2]) for number in range(12)]
    loop.run(*requests)
    assert {str(outcome(request)) for request in requests} == {"the device is lost"}
    runner.failing_calls = itertools.repeat(False)
    later = new_request(20, BEAMS)
    loop.run(later)
    assert outcome(later) == expected(later)
    loop.close()


def test_newcomers_join_each_other_and_not_those_that_are_alone() -> None:
    runner = PoisonedRunner(EngineError("the engine broke"), step=1)
    loop = Loop(runner)
    requests = [new_request(number, GREEDY, poisoned=number == 0) for number in range(4)]
    newcomers = [new_request(10 + number, GREEDY) for number in range(4)]
    loop.run(*requests)
    before = len(runner.step_sizes)
    loop.run(*newcomers)
    assert set(runner.step_sizes[before:]) == {(4, 1)}
    assert [outcome(request) for request in newcomers] == [expected(r) for r in newcomers]
    loop.close()


def test_one_that_is_to_be_tried_again_may_be_cancelled() -> None:
    runner = PoisonedRunner(EngineError("the engine broke"))
    loop = Loop(runner)
    requests = [new_request(number, GREEDY) for number in range(3)]

    def cancel_and_break(_: StepInputs) -> None:
        runner.before_step = lambda _: None
        requests[1].abort = RequestCancelledError("the caller cancelled the request")
        raise EngineError("the engine broke")

    runner.before_step = cancel_and_break
    loop.run(*requests)
    assert outcome(requests[1]) is requests[1].abort
    assert outcome(requests[0]) == expected(requests[0])
    assert outcome(requests[2]) == expected(requests[2])
    loop.close()


def test_a_stream_that_begins_otherwise_the_second_time_is_failed() -> None:
    """As a tie between two tokens may, which two batches round differently."""
    runner = PoisonedRunner(EngineError("the engine broke"))
    requests = [new_request(number, GREEDY, stream=True) for number in range(2)]

    def change_and_break(inputs: StepInputs) -> None:
        if inputs.position_ids[0, 0] == 4:
            runner.before_step = lambda _: None
            runner.model = ScriptedModel(VOCAB_SIZE, seed=1)
            raise EngineError("the engine broke")

    runner.before_step = change_and_break
    loop = Loop(runner)
    loop.run(*requests)
    for request in requests:
        assert "was not the one sent so far" in str(outcome(request))
    loop.close()


@dataclass(frozen=True)
class Fault:
    """A method that raises at one call, before or after it has done its work."""

    owner: Any
    method: str
    after: bool = False

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.owner.__name__}.{self.method}"

    def plant(self, monkeypatch: pytest.MonkeyPatch, error: Exception, call: int) -> None:
        healthy = getattr(self.owner, self.method)
        calls = itertools.count(1)

        def faulty(*arguments: Any, **keywords: Any) -> Any:
            fails = next(calls) == call
            if fails and not self.after:
                raise error
            result = healthy(*arguments, **keywords)
            if fails:
                raise error
            return result

        monkeypatch.setattr(self.owner, self.method, faulty)


FAULTS = [
    Fault(owner, method, after)
    for owner, method in [
        (ScriptedRunner, "encode"),
        (ScriptedRunner, "new_cache"),
        (ScriptedRunner, "decode_step"),
        (ScriptedCache, "put"),
        (ScriptedCache, "move"),
        (ScriptedCache, "resize"),
        (DecodeBatch, "admit"),
        (DecodeBatch, "step"),
        (DecodeBatch, "retire"),
        (DecodeBatches, "admit"),
        (DecodeBatches, "retire"),
        (DecodeBatches, "drop"),
        (DecodeBatches, "rooms"),
        (DecodeBatches, "newcomers_first"),
        (WaitingQueue, "take"),
        (WaitingQueue, "remove_aborted"),
        (WaitingQueue, "put_back"),
        (GreedySearch, "__init__"),
        (BeamSearch, "prepare"),
        (BeamSearch, "advance"),
        (BeamSearch, "committed"),
        (GenerationLoop, "_find_lost"),
        (RecordingListener, "on_tokens"),
        (RecordingListener, "on_finished"),
    ]
    for after in (False, True)
    # A listener that raises after it was told of the end was told.
    if not (after and method == "on_finished")
]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (fault, error)
        for fault in FAULTS
        for error in (RuntimeError("a defect"), MemoryError())
        # A cache that has no memory promises that nothing has changed.
        if not (fault.method == "resize" and fault.after and isinstance(error, MemoryError))
    ],
    ids=str,
)
def test_whatever_raises_wherever_no_request_is_lost(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, error: Exception
) -> None:
    """Each ends once, the loop goes on, and no slot, batch or place in the queue stays taken."""
    settings = [
        replace(one, max_new_tokens=n, min_new_tokens=n) for one in (GREEDY, BEAMS) for n in (2, 40)
    ]
    for call in (1, 2, 5):
        runner = ScriptedRunner(MODEL)
        loop = Loop(runner)
        # Raises as well, beside what is planted: recovery has something to do.
        runner.before_step = RaiseAtCall(7, EngineError("the engine broke"))
        with monkeypatch.context() as patch:
            fault.plant(patch, error, call)
            requests = [new_request(n, settings[n % 4], stream=n % 3 == 0) for n in range(10)]
            requests[4].abort = RequestCancelledError("the caller cancelled the request")
            loop.run(*requests)
            ends = [outcome(request) for request in requests]
        loop.run(later := new_request(20, BEAMS))
        assert outcome(later) == expected(later)
        values = loop.close()
        for request, end in zip(requests, ends, strict=True):
            assert isinstance(end, KobartError) or end == expected(request)
        assert values["kobart_requests_active"] == values["kobart_requests_waiting"] == 0
        assert values["kobart_cache_bytes"] == 0
        assert not list(loop.batches), "an empty batch keeps its cache"


class RaiseAtCall:
    """Raises at one call and lets all others pass."""

    def __init__(self, number: int, error: Exception) -> None:
        self._calls_left, self._error = number, error

    def __call__(self, _: object) -> None:
        self._calls_left -= 1
        if self._calls_left == 0:
            raise self._error


def test_a_summary_is_told_even_if_its_slot_cannot_be_freed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Fault(ScriptedCache, "move").plant(monkeypatch, RuntimeError("a defect"), 1)
    loop = Loop(ScriptedRunner(MODEL))
    short = replace(GREEDY, max_new_tokens=3, min_new_tokens=3)
    requests = [new_request(0, short), *(new_request(number, GREEDY) for number in range(1, 4))]
    loop.run(*requests)
    assert [outcome(request) for request in requests] == [expected(r) for r in requests]
    assert loop.close()["kobart_requests_retried"] == 3


@pytest.mark.parametrize("num_requests", [1, 3])
def test_who_cannot_be_told_of_an_end_holds_nobody_up(num_requests: int) -> None:
    class Deaf(RecordingListener):
        def on_finished(self, generated: Generated) -> None:
            raise RuntimeError("a listener must not raise")

        def on_failed(self, error: KobartError) -> None:
            super().on_failed(error)
            raise RuntimeError("not even here")

    loop = Loop(ScriptedRunner(MODEL))
    deaf = Request(np.array([5, 0, 6], np.int32), GREEDY, Deaf())
    others = [new_request(number, GREEDY) for number in range(1, num_requests)]
    loop.run(deaf, *others)
    assert "a listener must not raise" in str(outcome(deaf))
    assert [outcome(request) for request in others] == [expected(r) for r in others]
    loop.close()


def test_one_that_cannot_even_be_measured_is_failed_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    healthy = DecodeBatches.rooms

    def measure(self: DecodeBatches, joining: list[Request]) -> list[Room]:
        if any(POISON in request.input_ids for request in joining):
            raise RuntimeError("a defect")
        return healthy(self, joining)

    monkeypatch.setattr(DecodeBatches, "rooms", measure)
    loop = Loop(ScriptedRunner(MODEL))
    poisoned = new_request(9, GREEDY, poisoned=True)
    others = [new_request(number, GREEDY) for number in range(3)]
    loop.run(poisoned, *others)
    assert "a defect" in str(outcome(poisoned))
    assert [outcome(request) for request in others] == [expected(r) for r in others]
    loop.close()


def test_marks_and_cache_stay_of_one_size_where_there_is_no_memory_for_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Marks of another size than the cache's would point into nowhere, or at the wrong entry."""
    runner = ScriptedRunner(MODEL)
    batch = DecodeBatch(runner, 1)
    long = replace(GREEDY, max_new_tokens=100, min_new_tokens=100)
    leaving, staying = (
        Sequence(request, GreedySearch(request.settings, IDS))
        for request in (new_request(0, long), new_request(1, GREEDY))
    )
    for sequence, num_steps in ((leaving, 90), (staying, 1)):
        batch.admit({0: sequence}, runner.encode(*pad_sources([sequence.request], IDS.pad)))
        for _ in range(num_steps):
            batch.step()
    healthy = np.zeros

    def no_memory(shape: Any, *arguments: Any) -> np.ndarray:
        if len(shape) == 3:
            raise MemoryError
        return healthy(shape, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(np, "zeros", no_memory)
        batch.retire(leaving)
    while staying.search.generated is None:
        batch.step()  # the runner compares the marks with its cache
    assert staying.search.generated == expected(staying.request)
