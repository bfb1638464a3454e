"""Section `served`: the same traffic through the real Triton, and through the loop in process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

from benchmarks.contestants import runners
from benchmarks.generation_results import Bar, Section
from benchmarks.generation_setup import Setup, settings_of
from benchmarks.our_runtime import open_tokenizer
from benchmarks.subjects import BuildFacts, serving
from benchmarks.traffic import TextCall
from benchmarks.traffic_answers import Replay, check_count, continuous_texts
from builders.paths import DEFAULT_CHECKPOINT_FOLDER
from client.async_client import AsyncKobartClient
from client.perf.statistics import Spread
from kobart_documents import read_texts
from kobart_runtime.settings import GenerationSettings

LIMIT = 0.95
TEXTS = DEFAULT_CHECKPOINT_FOLDER / "test.jsonl"
SERVED, IN_PROCESS = "Triton over gRPC", "loop in process"
SENT = ("num_beams", "max_new_tokens", "min_new_tokens", "no_repeat_ngram_size")


def measure(setup: Setup) -> Section:
    """Answer the same texts by a server and in a process, in turns."""
    traffic = setup.sizes.traffic
    build = setup.build("int8")
    facts = BuildFacts.read(build.path)
    calls = traffic.texts(sentences(), open_tokenizer(facts.path, facts.config))
    replays: dict[str, list[Replay]] = {SERVED: [], IN_PROCESS: []}
    log = setup.work / "triton.log"
    with runners([build]) as (process,), serving(build.path, log, facts.config.name) as server:
        for repeat in range(setup.repeats + 1):
            texts = calls if repeat else calls[: traffic.in_flight]  # to warm up
            local = partial(continuous_texts, calls=texts, in_flight=traffic.in_flight)
            time.sleep(setup.sizes.settle_s)
            there = asyncio.run(
                answer_served(server.grpc_url, facts.config.name, texts, traffic.in_flight)
            )
            here = process.run(local, setup.sizes.settle_s)
            if repeat:
                replays[SERVED].append(there)
                replays[IN_PROCESS].append(here)
    rates = {
        name: Spread.of([each.tokens_per_s for each in some]) for name, some in replays.items()
    }
    rows = [
        {
            "system": name,
            "tokens_per_s": asdict(rates[name]),
            **{
                f"latency_p{percent}_s": asdict(Spread.of([r.latency_s(percent) for r in some]))
                for percent in (50, 95)
            },
        }
        for name, some in replays.items()
    ]
    bar = Bar.of_ratio("served: Triton / in process", rates[SERVED], rates[IN_PROCESS], LIMIT)
    return Section(rows=rows, bars=[bar], settings=settings_of(setup, {"traffic": asdict(traffic)}))


def sentences() -> list[str]:
    """Lines of kobart-mini's test dialogues."""
    return [line for text in read_texts(TEXTS) for line in text.splitlines()]


async def answer_served(url: str, model: str, calls: Sequence[TextCall], in_flight: int) -> Replay:
    """Keep so many requests in flight until all are answered."""
    waiting = iter(calls)
    latencies: list[float] = []
    num_tokens = 0
    started = time.perf_counter()
    async with AsyncKobartClient(url, model=model, timeout_s=600.0) as client:

        async def worker(waiting: Iterator[TextCall]) -> None:
            nonlocal num_tokens
            for text, settings in waiting:
                arrived = time.perf_counter()
                summary = await client.summarize(text, **_sent(settings))
                latencies.append(time.perf_counter() - arrived)
                num_tokens += check_count(settings, summary.num_output_tokens)

        await asyncio.gather(*(worker(waiting) for _ in range(in_flight)))
    return Replay(time.perf_counter() - started, num_tokens, latencies)


def _sent(settings: GenerationSettings) -> dict[str, float]:
    return {name: getattr(settings, name) for name in SENT}
