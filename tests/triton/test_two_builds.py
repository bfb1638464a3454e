"""Two builds on one server do not disturb each other, and one is replaced without a gap."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from client import KobartClient, RetryPolicy, Summary
from server.stubs import find_stubs
from server.supervisor import TritonServer
from tests.patience import PATIENCE_S, wait_until
from tests.triton.conftest import NO_RETRY, running
from tests.triton.http_api import generate
from tests.triton.limited import limited_copy

pytestmark = pytest.mark.triton

MODELS = ("kobart", "narrow")
PATIENT = RetryPolicy(max_attempts=10_000, initial_backoff_s=0.1, max_backoff_s=0.2)
NUM_CALLERS = 3


@pytest.fixture(scope="module")
def two(
    mini_build: Path, narrow_build: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("two")
    builds = [
        limited_copy(mini_build, folder / "one"),
        limited_copy(narrow_build, folder / "other", max_batch_size=4, max_queue_size=64),
    ]
    with running(builds, folder / "log") as server:
        yield server


def summarize_all(server: TritonServer, model: str, texts: Sequence[str]) -> list[Summary]:
    """Each text's summary; no error is forgiven."""
    with KobartClient(server.grpc_url, model=model, timeout_s=PATIENCE_S, retry=NO_RETRY) as client:
        return client.summarize_many(texts, concurrency=4, max_new_tokens=16, num_beams=2)


def test_each_answers_as_if_it_were_alone(two: TritonServer, dialogues: list[str]) -> None:
    texts = dialogues[:4]
    alone = [summarize_all(two, model, texts) for model in MODELS]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(2) as pool:
        together = pool.map(lambda model: summarize_all(two, model, texts * 2), MODELS)
        assert list(together) == [one * 2 for one in alone]
    for model, answers in zip(MODELS, alone, strict=True):
        told = generate(two, model, text_input=texts[0], max_new_tokens=16, num_beams=2)
        assert told["text_output"] == answers[0].text


@contextmanager
def under_load(server: TritonServer, model: str, texts: Sequence[str]) -> Iterator[list[Summary]]:
    """Callers that go on and on; leaving asserts that each got what it got before."""
    before = summarize_all(server, model, texts)
    stopped = threading.Event()
    answered: list[Summary] = []

    def call() -> None:
        while not stopped.is_set():
            answers = summarize_all(server, model, texts)
            assert answers == before
            answered.extend(answers)

    with ThreadPoolExecutor(NUM_CALLERS) as pool:
        callers = [pool.submit(call) for _ in range(NUM_CALLERS)]
        try:
            yield answered
        finally:
            stopped.set()
        for caller in callers:
            caller.result()


def process_of(server: TritonServer, model: str) -> set[int]:
    return {stub.pid for stub in find_stubs(server.pid) if stub.model == model}


def test_a_build_that_was_replaced_is_loaded_without_a_gap(
    two: TritonServer, dialogues: list[str]
) -> None:
    """Triton serves the old one until the new one is ready; what it has accepted, it finishes."""
    old = process_of(two, "kobart")
    with (
        under_load(two, "kobart", dialogues[:2]) as answered,
        under_load(two, "narrow", dialogues[:2]) as undisturbed,
    ):
        os.utime(two.builds.paths[0] / "kobart" / "1" / "manifest.json")
        two.api.load("kobart", PATIENCE_S)
        wait_until(lambda: not old & process_of(two, "kobart"))
        count, others = len(answered), len(undisturbed)
        wait_until(lambda: len(answered) > count + 4)
        wait_until(lambda: len(undisturbed) > others)


def test_unload_and_load_leave_a_gap_that_retries_bridge(
    two: TritonServer, dialogues: list[str]
) -> None:
    texts = dialogues[:2] * 8
    with (
        under_load(two, "narrow", dialogues[:2]) as undisturbed,
        KobartClient(two.grpc_url, timeout_s=PATIENCE_S, retry=PATIENT) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        expected = client.summarize_many(texts[:2], max_new_tokens=16) * 8
        many = pool.submit(client.summarize_many, texts, concurrency=2, max_new_tokens=16)
        two.api.unload("kobart")
        assert "no available versions" in generate(two, text_input=texts[0])["error"]
        two.api.load("kobart", PATIENCE_S)
        assert many.result() == expected
        others = len(undisturbed)
        wait_until(lambda: len(undisturbed) > others)
