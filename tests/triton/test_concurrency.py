"""Many requests of mixed settings at once: each gets what it gets alone, and nothing is left."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from client import KobartClient, Summary
from server.supervisor import TritonServer
from tests.triton.held import held_by
from tests.triton.http_api import generate, settled_metrics
from tests.triton.oracle import Oracle

pytestmark = pytest.mark.triton

NUM_REQUESTS = 64


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


def test_each_gets_what_it_gets_alone(
    triton: TritonServer, client: KobartClient, oracle: Oracle, dialogues: list[str]
) -> None:
    cases = mixed_cases(dialogues)
    alone = [case.run(client) for case in cases]
    held = held_by(triton)
    together = at_once(cases, client)
    ties = [
        (case, one, other)
        for case, one, other in zip(cases, alone, together, strict=True)
        if one != other
    ]
    for case, one, other in ties:
        print(f"tie? {case.settings}: {one.output_ids} {other.output_ids}")
        source_ids = oracle.source_ids(case.text)
        assert oracle.is_tie(source_ids, one.output_ids, other.output_ids, case.settings)
    after = settled_metrics(triton)  # nothing active, nothing waiting
    assert after["requests_failed"] == 0
    assert held_by(triton) == held


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
