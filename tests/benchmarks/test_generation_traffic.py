"""The traffic has the asked distribution, and every way to answer it gives what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.generation_served import sentences
from benchmarks.generation_sizes import FULL, QUICK
from benchmarks.our_runtime import OurRuntime
from benchmarks.static_batch import decode_together
from benchmarks.traffic import Call, by_beams, longest_settings, waves
from benchmarks.traffic_answers import Replay, check_count, continuous, static_batches
from client.perf.statistics import percentile
from kobart_runtime.errors import EngineError

TRAFFIC = FULL.traffic


@pytest.fixture(scope="module")
def runtime(mini_build: Path) -> Iterator[OurRuntime]:
    runtime = OurRuntime(mini_build)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def calls() -> list[Call]:
    return QUICK.traffic.calls(QUICK.cases[0].num_ids)


def test_source_lengths() -> None:
    lens = TRAFFIC.source_lens()
    assert len(lens) == 200
    assert percentile(lens, 50) == pytest.approx(180, rel=0.01)
    assert percentile(lens, 90) == pytest.approx(320, rel=0.02)
    assert 16 <= min(lens) < max(lens) <= 700
    halves = [np.mean(half) for half in (lens[:100], lens[100:])]
    assert halves[0] == pytest.approx(halves[1], rel=0.15)  # shuffled, not sorted


def test_settings() -> None:
    settings = TRAFFIC.settings()
    assert sorted(each.num_beams for each in settings) == [1] * 100 + [4] * 100
    tokens = [each.max_new_tokens for each in settings]
    assert (min(tokens), max(tokens)) == (8, 128)
    assert np.mean(tokens) == pytest.approx(68, abs=0.5)
    assert all(each.min_new_tokens == each.max_new_tokens for each in settings)
    assert abs(np.corrcoef(tokens, TRAFFIC.source_lens())[0, 1]) < 0.2


def test_the_same_at_every_run() -> None:
    first, second = TRAFFIC.calls(5000), TRAFFIC.calls(5000)
    for (source, settings), (again, same) in zip(first, second, strict=True):
        assert source.tolist() == again.tolist()
        assert settings == same
    assert [len(source) for source, _ in first] == TRAFFIC.source_lens()


def test_texts_have_the_lengths(runtime: OurRuntime) -> None:
    """Within one sentence."""
    texts = TRAFFIC.texts(sentences(), runtime.tokenizer)
    longest = max(len(runtime.tokenizer.encode(line).input_ids) for line in sentences())
    for (text, _), length in zip(texts, TRAFFIC.source_lens(), strict=True):
        num_tokens = len(runtime.tokenizer.encode(text).input_ids)
        assert length <= num_tokens < length + longest + 2


def test_waves_and_groups(calls: list[Call]) -> None:
    found = list(waves(calls, 3))
    assert [len(wave) for wave in found] == [3, 3, 2]
    assert [call for wave in found for call in wave] == calls
    groups = by_beams(calls)
    assert [{settings.num_beams for _, settings in group} for group in groups] == [{1}, {4}]
    assert sum(map(len, groups)) == len(calls)
    longest = max(settings.max_new_tokens for _, settings in calls)
    assert longest_settings(calls).max_new_tokens == longest


def test_a_static_batch_decodes_what_the_loop_does(runtime: OurRuntime, calls: list[Call]) -> None:
    """But for the last token, an eos that is forced where each ends."""
    greedy, _ = by_beams(calls)
    together = decode_together(runtime.runner, runtime.config, greedy)
    alone = runtime.generate_each(greedy)
    assert {len(ids) for ids in together} == {longest_settings(greedy).max_new_tokens}
    for ids, (_, settings), wanted in zip(together, greedy, alone, strict=True):
        count = settings.max_new_tokens - 1
        assert tuple(ids[:count]) == wanted[:count]
        assert count + 1 == len(wanted)


def test_wanted_tokens_alone_count(runtime: OurRuntime, calls: list[Call]) -> None:
    wanted = sum(settings.max_new_tokens for _, settings in calls)
    for answer in (continuous, static_batches):
        replay = answer(runtime, calls, 4)
        assert replay.num_tokens == wanted
        assert len(replay.latencies_s) == len(calls)
        assert 0 < min(replay.latencies_s) <= max(replay.latencies_s) <= replay.seconds


def test_missing_tokens_are_an_error(calls: list[Call]) -> None:
    _, settings = calls[0]
    count = settings.max_new_tokens
    assert check_count(settings, count) == check_count(settings, count + 1, exactly=False) == count
    for wrong, exactly in ((count - 1, False), (count + 1, True)):
        with pytest.raises(EngineError, match=f"where {count} were asked for"):
            check_count(settings, wrong, exactly=exactly)


def test_replay() -> None:
    replay = Replay(seconds=2.0, num_tokens=30, latencies_s=[0.1, 0.3, 0.2])
    assert replay.tokens_per_s == 15
    assert replay.latency_s(50) == 0.2
