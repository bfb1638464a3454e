"""Many requests of mixed settings at once: each gets what it gets alone, and nothing is left."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client import KobartClient, Summary
from server.stubs import find_stubs
from server.supervisor import TritonServer
from tests.triton.http_api import generate, settled_metrics
from tests.triton.oracle import Oracle

pytestmark = pytest.mark.triton

NUM_REQUESTS = 64
TIE = 1e-5  # difference of two sequences' log-probabilities that float32 cannot tell apart


@dataclass(frozen=True)
class Case:
    text: str
    stream: bool
    settings: dict[str, Any]

    def run(self, client: KobartClient) -> Summary:
        if not self.stream:
            return client.summarize(self.text, **self.settings)
        *_, last = client.stream(self.text, **self.settings)
        assert last.summary is not None
        return last.summary


def mixed_cases(dialogues: Sequence[str]) -> list[Case]:
    rng = random.Random(20)
    return [
        Case(
            text=dialogues[number % len(dialogues)][: rng.choice([30, 100, 300, 600])],
            stream=number % 2 == 0,
            settings={
                "num_beams": (1, 2, 4, 6, 8)[number % 5],
                "max_new_tokens": rng.choice([1, 3, 8, 16, 32]),
                "min_new_tokens": rng.choice([0, 0, 0, 6]),
                "no_repeat_ngram_size": rng.choice([0, 1, 2, 3, 15]),
                "repetition_penalty": rng.choice([1.0, 1.0, 1.2, 2.5]),
                "length_penalty": rng.choice([1.0, 0.0, 2.0, -1.0]),
                "early_stopping": rng.random() < 0.5,
            },
        )
        for number in range(NUM_REQUESTS)
    ]


def at_once(cases: Sequence[Case], client: KobartClient) -> list[Summary]:
    with ThreadPoolExecutor(len(cases)) as pool:
        return list(pool.map(lambda case: case.run(client), cases))


@dataclass(frozen=True)
class Held:
    """What the front model's process holds."""

    num_threads: int
    num_files: int


def held_by_front_model(triton: TritonServer) -> Held:
    (pid,) = (stub.pid for stub in find_stubs(triton.pid) if stub.model == "kobart")
    process = Path(f"/proc/{pid}")
    return Held(len(list((process / "task").iterdir())), len(list((process / "fd").iterdir())))


def test_each_gets_what_it_gets_alone(
    triton: TritonServer, client: KobartClient, oracle: Oracle, dialogues: list[str]
) -> None:
    cases = mixed_cases(dialogues)
    alone = [case.run(client) for case in cases]
    held = held_by_front_model(triton)
    together = at_once(cases, client)
    ties = [
        (case, one, other)
        for case, one, other in zip(cases, alone, together, strict=True)
        if one != other
    ]
    for case, one, other in ties:
        print(f"tie? {case.settings}: {one.output_ids} {other.output_ids}")
        assert is_tie(oracle, case, one.output_ids, other.output_ids)
    after = settled_metrics(triton)  # nothing active, nothing waiting
    assert after["requests_failed"] == 0
    assert held_by_front_model(triton) == held


def is_tie(oracle: Oracle, case: Case, one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether PyTorch too sees no difference between two answers to one request."""
    length = min(len(one), len(other))
    if case.settings["num_beams"] == 1:
        # Greedy search follows the first choice; what comes after it does not compare.
        length = 1 + next(n for n in range(length) if one[n] != other[n])
        one, other = one[:length], other[:length]
    source_ids = oracle.source_ids(case.text)
    scores = [oracle.score(source_ids, ids, case.settings) for ids in (one, other)]
    penalty = case.settings["length_penalty"]
    normalised = [s / len(ids) ** penalty for s, ids in zip(scores, (one, other), strict=True)]
    return math.isclose(*normalised, rel_tol=0.0, abs_tol=TIE)


def test_http_and_grpc_at_once(
    triton: TritonServer, client: KobartClient, dialogues: list[str]
) -> None:
    texts = dialogues[:12]
    with ThreadPoolExecutor(2 * len(texts)) as pool:
        over_http = [
            pool.submit(generate, triton, text_input=text, max_new_tokens=12) for text in texts
        ]
        over_grpc = [pool.submit(client.summarize, text, max_new_tokens=12) for text in texts]
        for one, other in zip(over_http, over_grpc, strict=True):
            answer, summary = one.result(), other.result()
            assert answer["text_output"] == summary.text
            ids = answer["output_ids"]
            assert tuple(ids if isinstance(ids, list) else [ids]) == summary.output_ids


def test_the_metrics_add_up(
    triton: TritonServer, client: KobartClient, dialogues: list[str]
) -> None:
    before = settled_metrics(triton)
    summaries = client.summarize_many(dialogues[:5], concurrency=5, max_new_tokens=6, num_beams=3)
    generate(triton, text_input=dialogues[0], num_beams=99)
    after = settled_metrics(triton)
    moved = {name: after[name] - before[name] for name in after}
    assert moved["requests_received"] == 6
    assert moved["requests_finished"] == moved["first_tokens"] == 5
    assert moved["requests_rejected"] == 1
    assert moved["requests_cancelled"] == moved["requests_failed"] == 0
    assert moved["input_tokens"] == sum(summary.num_input_tokens for summary in summaries)
    assert moved["output_tokens"] == sum(summary.num_output_tokens for summary in summaries)
    assert moved["decode_step_rows"] == 3 * moved["decode_step_requests"]
    assert 0 < moved["decode_steps"] <= moved["decode_step_requests"]
    for phase in ("tokenize", "encode", "decode", "detokenize", "first_token"):
        assert moved[f"{phase}_seconds"] > 0, phase
    assert after["slots"] == 32
