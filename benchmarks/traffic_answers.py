"""Ways to answer traffic; each runs in the process of the system that answers."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.ctranslate2_folder import CTranslate2Folder
from benchmarks.our_runtime import OurRuntime
from benchmarks.static_batch import decode_together
from benchmarks.traffic import Call, TextCall, by_beams, longest_settings, waves
from client.perf.statistics import percentile
from kobart_runtime.errors import EngineError, KobartError
from kobart_runtime.request import Request
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings


@dataclass(frozen=True)
class Replay:
    """All requests once."""

    seconds: float
    num_tokens: int  # those that were wanted
    latencies_s: list[float]  # of each request, from its arrival to its end

    @property
    def tokens_per_s(self) -> float:
        """Beams counted once."""
        return self.num_tokens / self.seconds

    def latency_s(self, percent: float) -> float:
        """The latency that so many of the requests do not exceed."""
        return percentile(self.latencies_s, percent)


def check_count(wanted: GenerationSettings, num_tokens: int, *, exactly: bool = True) -> int:
    """The wanted tokens of a request, once it is known that they were generated.

    Raises:
        EngineError: There are fewer; or more, which is fine only in a batch of longer requests.
    """
    count = wanted.max_new_tokens
    if num_tokens < count or (exactly and num_tokens > count):
        raise EngineError(f"{num_tokens} tokens came back where {count} were asked for")
    return count


def continuous(runtime: OurRuntime, calls: Sequence[Call], in_flight: int) -> Replay:
    """This project's loop: a request is submitted as soon as another has finished."""
    return _closed_loop(runtime, calls, in_flight, lambda source: source, lambda ids: None)


def continuous_texts(runtime: OurRuntime, calls: Sequence[TextCall], in_flight: int) -> Replay:
    """As `continuous`, from text to text."""
    tokenizer = runtime.tokenizer
    return _closed_loop(
        runtime, calls, in_flight, lambda text: tokenizer.encode(text).input_ids, tokenizer.decode
    )


def static_batches(runtime: OurRuntime, calls: Sequence[Call], in_flight: int) -> Replay:
    """This project's engines and search, with the batches of a server that has static ones."""
    return _in_waves(calls, in_flight, partial(decode_together, runtime.runner, runtime.config))


def ctranslate2_threads(system: CTranslate2Folder, calls: Sequence[Call], in_flight: int) -> Replay:
    """A thread for each request in flight, each with a call of its own."""

    def answer(call: Call) -> tuple[float, int]:
        arrived = time.perf_counter()
        (ids,) = system.generate([call[0]], call[1])
        return time.perf_counter() - arrived, check_count(call[1], len(ids))

    started = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as threads:
        answers = list(threads.map(answer, calls))
    seconds = time.perf_counter() - started
    return Replay(seconds, sum(count for _, count in answers), [each for each, _ in answers])


def ctranslate2_waves(
    system: CTranslate2Folder, calls: Sequence[Call], in_flight: int, max_batch_size: int | None
) -> Replay:
    """A call for all requests in flight of one beam width, sorted by length."""

    def answer(group: Sequence[Call]) -> list[list[int]]:
        order = sorted(range(len(group)), key=lambda index: len(group[index][0]))
        sources = [group[index][0] for index in order]
        answers = system.generate(sources, longest_settings(group), max_batch_size)
        return [ids for _, ids in sorted(zip(order, answers, strict=True))]

    return _in_waves(calls, in_flight, answer)


def _in_waves(
    calls: Sequence[Call],
    in_flight: int,
    answer: Callable[[Sequence[Call]], list[list[int]]],
) -> Replay:
    """The next wave begins when the whole last one has finished."""
    num_tokens, latencies = 0, []
    started = time.perf_counter()
    for wave in waves(calls, in_flight):
        arrived = time.perf_counter()
        for group in by_beams(wave):
            answers = answer(group)
            latencies += [time.perf_counter() - arrived] * len(group)
            for (_, settings), ids in zip(group, answers, strict=True):
                num_tokens += check_count(settings, len(ids), exactly=False)
    return Replay(time.perf_counter() - started, num_tokens, latencies)


class _Answer:
    """A listener that puts its request's number and outcome into a queue."""

    def __init__(self, number: int, ended: queue.SimpleQueue[tuple[int, Any]]) -> None:
        self._number = number
        self._ended = ended

    def on_tokens(self, ids: Sequence[int]) -> None:
        pass

    def on_finished(self, generated: Generated) -> None:
        self._ended.put((self._number, generated))

    def on_failed(self, error: KobartError) -> None:
        self._ended.put((self._number, error))


def _closed_loop(
    runtime: OurRuntime,
    calls: Sequence[Any],
    in_flight: int,
    encode: Callable[[Any], np.ndarray],
    decode: Callable[[Sequence[int]], object],
) -> Replay:
    ended: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    arrived: dict[int, float] = {}
    latencies, num_tokens = [0.0] * len(calls), 0

    def submit_next() -> None:
        number = len(arrived)
        if number < len(calls):
            source, settings = calls[number]
            arrived[number] = time.perf_counter()
            runtime.submit(Request(encode(source), settings, _Answer(number, ended)))

    started = time.perf_counter()
    for _ in range(in_flight):
        submit_next()
    for _ in calls:
        number, outcome = ended.get()
        if isinstance(outcome, KobartError):
            raise outcome
        decode(outcome.ids)
        latencies[number] = time.perf_counter() - arrived[number]
        num_tokens += check_count(calls[number][1], len(outcome.ids))
        submit_next()
    return Replay(time.perf_counter() - started, num_tokens, latencies)
