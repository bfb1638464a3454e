"""Thousands of requests of random settings: right to the last, and nothing is lost on the way."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from client import KobartClient
from server.supervisor import TritonServer
from tests.conftest import MINI_CHECKPOINT
from tests.patience import PATIENCE_S, wait_until
from tests.triton.conftest import NO_RETRY
from tests.triton.held import held_by, resident_bytes
from tests.triton.http_api import settled_metrics
from tests.triton.oracle import Oracle

pytestmark = pytest.mark.triton

CONCURRENCY = 12
ROUND = 100  # requests between two looks at the server
SAMPLE = 100  # every so many requests one is compared with PyTorch
MAX_GROWTH = 1.02  # of the memory that is held when idle, after the warm-up; it soon is again
IDLE_S = 1.5  # after a second of idleness the loop gives back what it has freed
LENGTHS = [10, 30, 60, 120]
WIDTHS = [1, 1, 1, 2, 4]
MAX_NEW_TOKENS = 12


@dataclass(frozen=True)
class Asked:
    """One request."""

    text: str
    stream: bool
    settings: dict[str, Any]

    def run(self, client: KobartClient) -> tuple[int, ...]:
        if not self.stream:
            return client.summarize(self.text, **self.settings).output_ids
        *_, last = client.stream(self.text, **self.settings)
        assert last.summary is not None
        return last.summary.output_ids


def random_request(rng: random.Random, texts: Sequence[str]) -> Asked:
    return Asked(
        text=rng.choice(texts)[: rng.choice(LENGTHS)],
        stream=rng.random() < 0.3,
        settings={
            "num_beams": rng.choice(WIDTHS),
            "max_new_tokens": rng.randint(1, MAX_NEW_TOKENS),
            "min_new_tokens": rng.choice([0, 0, 4]),
            "no_repeat_ngram_size": rng.choice([0, 2, 3]),
            "repetition_penalty": rng.choice([1.0, 1.0, 1.3]),
            "length_penalty": rng.choice([1.0, 0.5, 2.0]),
            "early_stopping": rng.random() < 0.5,
        },
    )


def largest_requests(texts: Sequence[str]) -> list[Asked]:
    """A round after which the engine's own memory has seen all that will come.

    ONNX Runtime keeps as much as its largest call has ever needed.
    """
    length = {"max_new_tokens": MAX_NEW_TOKENS, "min_new_tokens": MAX_NEW_TOKENS}
    return [
        Asked(text[: max(LENGTHS)], stream=False, settings={**length, "num_beams": width})
        for width in sorted(set(WIDTHS), reverse=True)
        for text in sorted(texts, key=lambda text: -len(text))[: 2 * CONCURRENCY]
    ]


def in_rounds(
    client: KobartClient, count: int, new_request: Callable[[], Asked]
) -> Iterator[list[tuple[Asked, tuple[int, ...]]]]:
    """Each round's requests with their answers."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for _ in range(count // ROUND):
            asked = [new_request() for _ in range(ROUND)]
            answers = pool.map(lambda one: one.run(client), asked)
            yield list(zip(asked, answers, strict=True))


@pytest.mark.parametrize(
    ("count", "warm_up"), [(400, 200), pytest.param(20_000, 1_000, marks=pytest.mark.soak)]
)
# min_new_tokens above max_new_tokens is among what is asked for, and PyTorch says so.
@pytest.mark.filterwarnings("ignore:Unfeasible length constraints:UserWarning")
def test_soak(disturbed: TritonServer, dialogues: list[str], count: int, warm_up: int) -> None:
    rng = random.Random(count)
    sample: list[tuple[Asked, tuple[int, ...]]] = []
    largest = largest_requests(dialogues)
    with KobartClient(disturbed.grpc_url, retry=NO_RETRY, timeout_s=PATIENCE_S) as client:
        rounds = in_rounds(client, count, lambda: random_request(rng, dialogues))
        before = settled_metrics(disturbed)
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(lambda one: one.run(client), largest))
        started = time.monotonic()
        for number, answered in enumerate(rounds, start=1):
            sample += answered[::SAMPLE]
            if number * ROUND == warm_up:
                warm, held = idle_bytes(disturbed), held_by(disturbed)
        seconds = time.monotonic() - started
        wait_until(lambda: resident_bytes(disturbed) < MAX_GROWTH * warm)
        grown = resident_bytes(disturbed) / warm
        print(f"{count} requests in {seconds:.0f} s; {warm >> 20} MiB grew to {grown:.2%}")
        wait_until(lambda: held_by(disturbed) == held)
        after = settled_metrics(disturbed)
    assert after["requests_finished"] - before["requests_finished"] == count + len(largest)
    compare(sample)


def idle_bytes(server: TritonServer) -> int:
    """Memory once the loop has given back what it can."""
    time.sleep(IDLE_S)
    return resident_bytes(server)


def compare(sample: list[tuple[Asked, tuple[int, ...]]]) -> None:
    oracle = Oracle(MINI_CHECKPOINT)
    for asked, ids in sample:
        source_ids = oracle.source_ids(asked.text)
        expected = oracle.generate(source_ids, **asked.settings)
        assert ids == expected or oracle.is_tie(source_ids, ids, expected, asked.settings), asked
