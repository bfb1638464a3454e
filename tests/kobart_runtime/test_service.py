"""Text in, summary out, over scripted engines and a real tokenizer."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kobart_runtime import service as service_module
from kobart_runtime.admission import CacheBudget
from kobart_runtime.errors import (
    DeadlineExceededError,
    EngineError,
    InputTooLongError,
    InvalidArgumentError,
    KobartError,
    OverloadedError,
    RequestCancelledError,
    RequestError,
)
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.model_config import TokenIds, TokenizerConfig
from kobart_runtime.responder import Responder
from kobart_runtime.scheduler import WaitingQueue
from kobart_runtime.service import Answer, Call, SummarizationService
from kobart_runtime.settings import GenerationSettings
from kobart_runtime.tokenizer import Tokenizer
from tests.fakes import RecordingSink, ScriptedModel, ScriptedRunner, scripted_config
from tests.patience import PATIENCE_S, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
TOKENIZER = REPOSITORY / "assets" / "kobart-mini" / "tokenizer.json"
IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=1)
DEFAULTS = GenerationSettings(num_beams=2, max_new_tokens=12, no_repeat_ngram_size=2)
TEXT = "오늘 저녁에 같이 밥 먹을래? 좋아, 일곱 시에 만나자.".encode()

NewService = Callable[..., SummarizationService]


@pytest.fixture(scope="module")
def model() -> ScriptedModel:
    return ScriptedModel(30000)


@pytest.fixture
def runner(model: ScriptedModel) -> ScriptedRunner:
    return ScriptedRunner(model, num_candidates=32)


@pytest.fixture
def new_service(runner: ScriptedRunner) -> Iterator[NewService]:
    """Opens services; when the test ends they must close, balanced and without a thread left."""
    services: list[SummarizationService] = []

    def new(**limits: Any) -> SummarizationService:
        config = scripted_config(runner, IDS, DEFAULTS, **limits)
        tokenizer = Tokenizer(
            TOKENIZER,
            TokenizerConfig(),
            IDS,
            max_source_length=config.limits.max_source_length,
            vocab_size=runner.vocab_size,
        )
        services.append(SummarizationService(config, tokenizer, runner))
        return services[-1]

    threads = set(threading.enumerate())
    yield new
    for service in services:
        service.close()
        assert service.num_open == 0
        assert_balanced(service)
    assert set(threading.enumerate()) <= threads


def counters(service: SummarizationService) -> dict[str, float]:
    values = service.metrics.snapshot()
    return {name.removeprefix("kobart_"): value for name, value in values.items()}


def ended(service: SummarizationService) -> dict[str, float]:
    """Counters once every request has ended: the last response is sent, then counted."""
    wait_until(lambda: not service.num_open)
    return counters(service)


def assert_balanced(service: SummarizationService) -> None:
    values = counters(service)
    ends = ("finished", "cancelled", "rejected", "failed")
    assert values["requests_received"] == sum(values[f"requests_{end}"] for end in ends)


def submit(service: SummarizationService, text: bytes = TEXT, **fields: Any) -> RecordingSink:
    sink = RecordingSink()
    service.submit(Call(text=text, **fields), sink)
    return sink


def slow_steps(_: object) -> None:
    time.sleep(0.01)


class HoldUntilAborted:
    """Holds the loop at a step until one request is cancelled, out of time or not to be sent."""

    def __init__(self, service: SummarizationService, at_step: int = 0) -> None:
        self._service, self._steps_left = service, at_step

    def __call__(self, _: object) -> None:
        if self._steps_left == 0:
            wait_until(self._one_is_aborted)
        self._steps_left -= 1

    def _one_is_aborted(self) -> bool:
        marked = any(open_.request.abort for open_ in list(self._service._open.values()))
        return marked or counters(self._service)["requests_cancelled"] > 0


@pytest.mark.parametrize("num_beams", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_streamed_chunks_join_to_the_unary_answer(
    new_service: NewService, num_beams: int, seed: int
) -> None:
    service = new_service()
    text = f"{seed} ".encode() + TEXT
    settings = {"num_beams": num_beams, "max_new_tokens": 40}
    [unary] = submit(service, text, settings=settings).wait()
    chunks = submit(service, text, settings=settings, stream=True).wait()

    assert "".join(chunk.text for chunk in chunks) == unary.text
    assert tuple(id_ for chunk in chunks for id_ in chunk.output_ids) == unary.output_ids
    assert unary.num_output_tokens == len(unary.output_ids)
    assert {chunk.num_input_tokens for chunk in chunks} == {unary.num_input_tokens}
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [""] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == unary.finish_reason
    told = 0
    for chunk in chunks:
        told += len(chunk.output_ids)
        assert chunk.num_output_tokens == told
    assert all(chunk.text for chunk in chunks[:-1]), "an empty chunk was sent"
    if num_beams == 1:
        assert len(chunks) > 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, r"num_beams must be 1\.\.8, got 0"),
        ({"num_beams": 9}, r"num_beams must be 1\.\.8, got 9"),
        ({"max_new_tokens": 0}, r"max_new_tokens must be 1\.\.256, got 0"),
        ({"max_new_tokens": 257}, r"max_new_tokens must be 1\.\.256, got 257"),
        ({"min_new_tokens": -1}, r"min_new_tokens must be at least 0, got -1"),
        ({"no_repeat_ngram_size": -2}, r"no_repeat_ngram_size must be at least 0, got -2"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty .* above 0 \(1\.0 = off\), got 0"),
        ({"repetition_penalty": -1.5}, r"repetition_penalty .* above 0 .*, got -1\.5"),
        ({"repetition_penalty": math.nan}, r"repetition_penalty .*, got nan"),
        ({"repetition_penalty": math.inf}, r"repetition_penalty .*, got inf"),
        ({"length_penalty": math.nan}, r"length_penalty must be a finite number .*, got nan"),
        ({"length_penalty": -math.inf}, r"length_penalty must be a finite number .*, got -inf"),
        ({"num_beam": 4}, r"unknown setting num_beam: valid are num_beams, max_new_tokens"),
    ],
)
def test_settings_out_of_range_are_refused(
    new_service: NewService, settings: dict[str, float], message: str
) -> None:
    service = new_service()
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        submit(service, settings=settings)
    assert caught.value.status_message.startswith("INVALID_ARGUMENT: ")
    assert counters(service)["requests_rejected"] == 1
    assert service.num_open == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "text_input is empty or blank: send some text"),
        (" \n\t\u3000".encode(), "text_input is empty or blank: send some text"),
        (b"abc\xff\xfe", "text_input is not valid UTF-8 at byte 3: send well-formed text"),
        ("가".encode()[:2], "text_input is not valid UTF-8 at byte 0"),
    ],
)
def test_texts_that_are_none_are_refused(
    new_service: NewService, text: bytes, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        submit(new_service(), text)


def test_the_byte_limit_is_inclusive(new_service: NewService) -> None:
    service = new_service(max_input_bytes=30)
    exactly = "가" * 10  # 3 bytes each
    assert submit(service, exactly.encode()).wait()
    with pytest.raises(InputTooLongError) as caught:
        submit(service, exactly.encode() + b"a")
    assert str(caught.value) == (
        "text_input has 31 bytes, limit 30: shorten it, or serve with a larger --max-input-bytes"
    )
    assert caught.value.status_message.startswith("INVALID_ARGUMENT: ")


def test_the_byte_limit_counts_the_bytes_that_were_received(new_service: NewService) -> None:
    """A carriage return is a byte, though the text that is summarised has none."""
    service = new_service(max_input_bytes=7)
    assert submit(service, b"ab\r\ncde").wait()
    with pytest.raises(InputTooLongError, match="has 8 bytes, limit 7"):
        submit(service, b"ab\r\ncd\r\n")


def test_truncation_begins_one_token_above_the_limit(
    new_service: NewService, runner: ScriptedRunner
) -> None:
    service = new_service(max_source_length=20)
    [answer] = submit(service, TEXT).wait()
    num_tokens = answer.num_input_tokens
    assert not answer.truncated
    for limit, truncated in ((num_tokens, False), (num_tokens - 1, True)):
        [answer] = submit(new_service(max_source_length=limit), TEXT).wait()
        assert answer.num_input_tokens == limit
        assert answer.truncated is truncated
        chunks = submit(new_service(max_source_length=limit), TEXT, stream=True).wait()
        assert {chunk.truncated for chunk in chunks} == {truncated}
    assert {length for batch in runner.encoded_batches for length in batch} == {
        num_tokens,
        num_tokens - 1,
    }


def test_the_callers_timeout(new_service: NewService, runner: ScriptedRunner) -> None:
    service = new_service()
    runner.before_step = HoldUntilAborted(service)
    settings = {"max_new_tokens": 256, "min_new_tokens": 256}
    sink = submit(service, settings=settings, timeout_s=0.15)
    with pytest.raises(DeadlineExceededError, match=r"longer than 0\.15 s: ask for fewer"):
        sink.wait()
    assert runner.num_steps <= 1
    assert ended(service)["requests_cancelled"] == 1


@pytest.mark.parametrize("timeout_s", [None, 0.0, 60.0])
def test_the_builds_timeout_holds_whatever_the_caller_says(
    new_service: NewService, runner: ScriptedRunner, timeout_s: float | None
) -> None:
    service = new_service(max_request_seconds=0.15)
    runner.before_step = HoldUntilAborted(service)
    settings = {"max_new_tokens": 256, "min_new_tokens": 256}
    sink = submit(service, settings=settings, timeout_s=timeout_s)
    with pytest.raises(DeadlineExceededError, match=r"longer than 0\.15 s"):
        sink.wait()


def test_a_request_may_run_out_of_time_in_the_queue(
    new_service: NewService, runner: ScriptedRunner
) -> None:
    service = new_service(max_batch_size=1)
    runner.before_step = HoldUntilAborted(service)
    settings = {"max_new_tokens": 60, "min_new_tokens": 60}
    first = submit(service, settings=settings)
    waiting = submit(service, settings=settings, timeout_s=0.1)
    with pytest.raises(DeadlineExceededError):
        waiting.wait()
    assert first.wait()
    assert len(runner.encoded_batches) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_cancelled_caller_frees_the_slot(
    new_service: NewService, runner: ScriptedRunner, stream: bool
) -> None:
    service = new_service()
    runner.before_step = HoldUntilAborted(service)
    settings = {"num_beams": 1, "max_new_tokens": 256, "min_new_tokens": 256}
    sink = submit(service, settings=settings, stream=stream)
    sink.cancelled = True
    with pytest.raises(RequestCancelledError, match="the caller cancelled the request"):
        sink.wait()
    assert runner.num_steps <= 1
    assert sink.num_ends == 1


def test_a_sink_that_breaks_while_streaming_ends_its_request_alone(
    new_service: NewService, runner: ScriptedRunner, caplog: pytest.LogCaptureFixture
) -> None:
    service = new_service()
    runner.before_step = HoldUntilAborted(service, at_step=30)
    settings = {"num_beams": 1, "max_new_tokens": 200, "min_new_tokens": 200}
    broken = RecordingSink()
    broken.broken = OSError("the pipe is closed")
    service.submit(Call(text=TEXT, settings=settings, stream=True), broken)
    neighbour = submit(service, settings={"num_beams": 1})
    with pytest.raises(RequestError, match=r"could not be sent: OSError.*the pipe is closed"):
        broken.wait()
    assert neighbour.wait()
    assert runner.num_steps < 190
    assert "the pipe is closed" in caplog.text
    assert ended(service)["requests_finished"] == 1


def test_a_lost_chunk_is_never_followed_by_the_rest(new_service: NewService) -> None:
    """The request may have finished before the loop hears that a chunk of it was lost."""

    class BreaksOnce(RecordingSink):
        def send(self, answer: Answer, *, final: bool) -> None:
            wait_until(lambda: service._loop.num_active == 0)
            if not self.num_sends:
                self.num_sends += 1
                raise OSError("the pipe is closed")
            super().send(answer, final=final)

        num_sends = 0

    service = new_service()
    sink = BreaksOnce()
    settings = {"num_beams": 1, "max_new_tokens": 20, "min_new_tokens": 20}
    service.submit(Call(text=TEXT, settings=settings, stream=True), sink)
    with pytest.raises(RequestError, match="could not be sent"):
        sink.wait()
    service.close()
    assert sink.answers == []
    assert sink.num_ends == 1
    assert counters(service)["requests_cancelled"] == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_summary_that_cannot_be_put_into_words_is_an_error(
    new_service: NewService, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    def fail(*_: object) -> str:
        raise ValueError("no words")

    service = new_service()
    monkeypatch.setattr(Tokenizer, "decode", fail)
    with pytest.raises(RequestError, match=r"could not be sent: ValueError.*no words"):
        submit(service, stream=stream).wait()
    monkeypatch.undo()
    assert submit(service, stream=stream).wait()
    assert ended(service)["requests_finished"] == 1


def test_a_sink_that_breaks_at_the_end_harms_nobody(
    new_service: NewService, caplog: pytest.LogCaptureFixture
) -> None:
    service = new_service()
    broken = RecordingSink()
    broken.broken = OSError("the pipe is closed")
    service.submit(Call(text=TEXT), broken)
    assert submit(service).wait()
    service.close()
    assert broken.answers == []
    assert broken.num_ends == 1
    with pytest.raises(RequestError, match=r"could not be sent: OSError.*the pipe is closed"):
        broken.wait()
    assert "a response could not be sent" in caplog.text
    values = counters(service)
    assert (values["requests_finished"], values["requests_cancelled"]) == (1, 1)


class BrittleSink(RecordingSink):
    """Takes no chunk, or no final answer; no error either if it is broken for good."""

    def __init__(self, *breaks_at: str, error: Exception) -> None:
        super().__init__()
        self._breaks_at, self._error = breaks_at, error
        self.num_attempts = 0  # to send the last response

    def send(self, answer: Answer, *, final: bool) -> None:
        self.num_attempts += final
        if ("final" if final else "chunk") in self._breaks_at:
            raise self._error
        super().send(answer, final=final)

    def fail(self, error: KobartError) -> None:
        self.num_attempts += 1
        if "error" in self._breaks_at:
            raise self._error
        super().fail(error)


@pytest.mark.parametrize("error", [OSError("the pipe is closed"), MemoryError()], ids=repr)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("breaks_at", "trouble", "counter"),
    [
        ((), None, "finished"),
        (("final",), None, "cancelled"),  # the error takes the summary's place
        (("final", "error"), None, "failed"),
        (("chunk", "final"), None, "cancelled"),
        (("chunk", "final", "error"), None, "failed"),
        ((), "engine", "failed"),
        (("error",), "engine", "failed"),
        ((), "caller", "cancelled"),
        (("error",), "caller", "failed"),
    ],
)
def test_whatever_a_sink_does_its_request_ends_once_and_is_counted(
    new_service: NewService,
    runner: ScriptedRunner,
    breaks_at: tuple[str, ...],
    trouble: str | None,
    counter: str,
    stream: bool,
    error: Exception,
) -> None:
    def step(_: object) -> None:
        time.sleep(0.005)
        if trouble == "engine":
            raise EngineError("the engine broke")

    runner.before_step = step
    service = new_service(max_batch_size=1)
    sink = BrittleSink(*breaks_at, error=error)
    sink.cancelled = trouble == "caller"
    settings = {"num_beams": 1, "max_new_tokens": 30, "min_new_tokens": 30}
    service.submit(Call(text=TEXT, settings=settings, stream=stream), sink)
    values = ended(service)
    ends = ("finished", "cancelled", "failed")
    assert {end: values[f"requests_{end}"] for end in ends} == {
        end: float(end == counter) for end in ends
    }
    assert sink.num_ends == ("error" not in breaks_at)
    lost_final = "final" in breaks_at and not (stream and "chunk" in breaks_at)
    assert sink.num_attempts == 1 + lost_final
    trouble = None
    assert submit(service, settings=settings).wait(), "the slot is free"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a defect")], ids=repr)
@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (GenerationLoop, "check_room"),
        (GenerationLoop, "submit"),
        (CacheBudget, "check"),
        (WaitingQueue, "append"),
        (Tokenizer, "encode"),
    ],
)
def test_a_request_that_cannot_be_queued_leaves_nothing_behind(
    new_service: NewService,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    error: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise error

    service = new_service(max_queue_size=1)
    monkeypatch.setattr(owner, method, fail)
    for _ in range(3):
        sink = RecordingSink()
        with pytest.raises(type(error)):
            service.submit(Call(text=TEXT), sink)
        assert service.num_open == 0
    monkeypatch.undo()
    assert submit(service).wait()
    assert sink.num_ends == 0, "a refused request is not answered by the loop as well"
    values = ended(service)
    assert (values["requests_failed"], values["requests_finished"]) == (3, 1)


@pytest.mark.parametrize("handed_over", ["chunk", "final"])
def test_an_answer_that_cannot_be_handed_over_becomes_an_error(
    new_service: NewService, monkeypatch: pytest.MonkeyPatch, handed_over: str
) -> None:
    healthy = Responder.put
    num_failures = 0

    def fail_once(self: Responder, event: Any, delay_s: float = 0.0) -> None:
        nonlocal num_failures
        if not num_failures:
            num_failures += 1
            raise MemoryError
        healthy(self, event, delay_s)

    service = new_service()
    monkeypatch.setattr(Responder, "put", fail_once)
    with pytest.raises(EngineError, match="MemoryError"):
        submit(service, settings={"num_beams": 1}, stream=handed_over == "chunk").wait()
    values = ended(service)
    assert (values["requests_failed"], values["requests_finished"]) == (1, 0)
    assert submit(service).wait()


def test_what_the_loop_does_not_end_the_responder_does(
    new_service: NewService, runner: ScriptedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that hangs, or a request that the loop has lost: its deadline holds all the same."""
    monkeypatch.setattr(service_module, "_LOOP_PATIENCE_S", 0.1)
    held = threading.Event()
    runner.before_step = lambda _: assert_set(held)
    service = new_service()
    sink = submit(service, timeout_s=0.1)
    with pytest.raises(DeadlineExceededError, match=r"longer than 0\.1 s"):
        sink.wait()
    assert ended(service)["requests_cancelled"] == 1
    held.set()
    runner.before_step = lambda _: None
    assert submit(service).wait()
    service.close()
    assert sink.num_ends == 1


def assert_set(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)


def test_a_sink_that_cannot_tell_whether_it_is_cancelled_harms_nobody(
    new_service: NewService, runner: ScriptedRunner
) -> None:
    class Unwell(RecordingSink):
        def is_cancelled(self) -> bool:
            raise OSError("the pipe is closed")

    service = new_service()
    runner.before_step = HoldUntilAborted(service, at_step=30)
    settings = {"num_beams": 1, "max_new_tokens": 100, "min_new_tokens": 100}
    unwell = Unwell()
    service.submit(Call(text=TEXT, settings=settings), unwell)
    neighbour = submit(service, settings=settings)
    with pytest.raises(RequestCancelledError):
        unwell.wait()
    assert neighbour.wait()


def test_a_failing_engine_is_told_and_counted(
    new_service: NewService, runner: ScriptedRunner
) -> None:
    def fail(_: object) -> None:
        raise EngineError("the engine broke")

    runner.before_step = fail
    service = new_service()
    with pytest.raises(EngineError, match="the engine broke"):
        submit(service).wait()
    runner.before_step = lambda _: None
    assert submit(service).wait()
    values = ended(service)
    assert (values["requests_failed"], values["requests_finished"]) == (1, 1)


def test_a_full_queue_refuses_before_tokenizing(
    new_service: NewService, runner: ScriptedRunner
) -> None:
    held, reached = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        reached.set()
        assert held.wait(PATIENCE_S)

    runner.before_encode = hold
    service = new_service(max_queue_size=1)
    first = submit(service)
    assert reached.wait(PATIENCE_S)
    second = submit(service)
    before = counters(service)["tokenize_seconds"]
    with pytest.raises(OverloadedError, match="1 requests are waiting, limit 1: try again"):
        submit(service)
    assert counters(service)["tokenize_seconds"] == before
    assert service.num_open == 2
    held.set()
    assert first.wait()
    assert second.wait()
    assert counters(service)["requests_rejected"] == 1


def test_close_answers_what_was_accepted_and_refuses_the_rest(
    new_service: NewService, runner: ScriptedRunner
) -> None:
    runner.before_step = slow_steps
    service = new_service(max_batch_size=2)
    sinks = [submit(service, stream=number % 2 == 0) for number in range(5)]
    service.close()
    assert all(sink.num_ends == 1 and sink.answers for sink in sinks)
    with pytest.raises(OverloadedError, match="the model is being unloaded"):
        submit(service)
    assert service.num_open == 0


def test_what_cannot_be_read_as_a_call_is_counted_too(new_service: NewService) -> None:
    service = new_service()
    service.count_unread(InvalidArgumentError("unknown field num_beam"))
    service.count_unread(MemoryError())
    values = counters(service)
    ends = values["requests_received"], values["requests_rejected"], values["requests_failed"]
    assert ends == (2, 1, 1)


def test_counters_add_up_under_a_mixed_load(
    new_service: NewService, runner: ScriptedRunner
) -> None:
    rng = random.Random(0)
    calls = 0

    def break_now_and_then(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 7 == 0:  # often enough to meet requests that are tried again, alone
            raise EngineError("the engine broke")

    runner.before_step = break_now_and_then
    service = new_service(max_queue_size=12, max_batch_size=4)
    sinks: list[RecordingSink] = []
    num_refused = 0
    for number in range(80):
        settings = {"num_beams": rng.choice([1, 2, 9]), "max_new_tokens": rng.randint(1, 10)}
        sink = RecordingSink()
        sink.cancelled = rng.random() < 0.2
        try:
            text = f"{number}번 ".encode() + TEXT
            stream = rng.random() < 0.5
            service.submit(Call(text=text, settings=settings, stream=stream), sink)
            sinks.append(sink)
        except KobartError:
            num_refused += 1
            assert sink.num_ends == 0
            time.sleep(0.02)
    service.close()
    values = counters(service)
    assert all(sink.num_ends == 1 for sink in sinks)
    assert values["requests_received"] == 80
    assert values["requests_rejected"] == num_refused > 0
    assert values["requests_finished"] == sum(sink.error is None for sink in sinks) > 0
    cancelled = [isinstance(sink.error, RequestCancelledError) for sink in sinks]
    assert values["requests_cancelled"] == sum(cancelled)
    failed = [isinstance(sink.error, EngineError) for sink in sinks]
    assert values["requests_failed"] == sum(failed) > 0
