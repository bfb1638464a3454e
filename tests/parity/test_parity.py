"""Token for token what `transformers` `generate()` gives, in fp32, over many settings.

All requests of a checkpoint are in flight together, so that beams of all widths, lengths and
rules share batches; `generate()` gets one padded batch for each combination of settings.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from benchmarks.systems import OurRuntime
from builders.checkpoint import load_checkpoint
from builders.config import BuildConfig
from builders.pipeline import build
from builders.special_ids import IdOverrides
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig
from kobart_runtime.settings import GenerationSettings
from kobart_runtime.tokenizer import Tokenizer
from tests.conftest import MINI_CHECKPOINT, SHARED
from tests.parity.checkpoints import DEEP_DECODER, USR_START, SeededCheckpoint
from tests.parity.oracle import Oracle

_TIE = 1e-5  # fp32 cannot tell candidates apart that are closer than this
_NUM_SETTINGS, _NUM_SOURCES = 15, 8  # of each checkpoint
_CHOICES = {
    "num_beams": (1, 2, 4, 6, 8),
    "no_repeat_ngram_size": (0, 2, 3, 15),
    "length_penalty": (-1.0, 0.5, 1.0, 2.0),
    "repetition_penalty": (1.0, 1.2, 2.5),
    "min_new_tokens": (0, 12, 30),
    "max_new_tokens": (1, 20, 128),
    "early_stopping": (False, True),
}


@dataclass(frozen=True)
class Subject:
    """One checkpoint, as PyTorch and as our build."""

    name: str
    oracle: Oracle
    runtime: OurRuntime
    tokenizer: Tokenizer
    tokenizer_file: Path


@pytest.fixture(scope="module", params=["kobart-mini", "usr-start", "deep-decoder"])
def subject(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = _checkpoint(request.param, folder / "checkpoint")
    # The gate is for weights of usual size; what these give is compared token by token.
    output = build(
        BuildConfig(checkpoint=str(checkpoint), output=str(folder / "build"), force=True)
    )
    config = ModelConfig.from_manifest(output / MANIFEST_NAME)
    tokenizer = Tokenizer(
        checkpoint / "tokenizer.json",
        config.tokenizer,
        config.ids,
        max_source_length=config.limits.max_source_length,
        vocab_size=config.shape.vocab_size,
    )
    loaded = load_checkpoint(str(checkpoint), IdOverrides())
    runtime = OurRuntime(output)
    oracle = Oracle(loaded.model, config.ids)
    yield Subject(request.param, oracle, runtime, tokenizer, checkpoint / "tokenizer.json")
    runtime.close()


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")  # min above max is a case
def test_ids_equal_generate(subject: Subject, texts: list[str]) -> None:
    cases = _cases(subject, texts)
    calls = [(source, settings) for settings, sources in cases for source in sources]
    answers = iter(subject.runtime.generate_each(calls))
    ties, num_tokens = [], 0
    for settings, sources in cases:
        expected = subject.oracle.generate(sources, settings)
        for source, theirs in zip(sources, expected, strict=True):
            ours = next(answers)
            num_tokens += len(theirs)
            if ours != theirs:
                gap = subject.oracle.gap(source, settings, theirs, ours)
                assert abs(gap) < _TIE, (settings, len(source), theirs, ours, gap)
                ties.append((settings, gap))
    num_cases = sum(len(sources) for _, sources in cases)
    print(f"{subject.name}: {num_cases} cases, {num_tokens} tokens, {len(ties)} ties: {ties}")


@pytest.mark.parametrize("line_end", ["\r\n", "\r"], ids=["CRLF", "CR"])
def test_line_ends_give_what_generate_gives_for_lf(
    subject: Subject, dialogues: list[str], line_end: str
) -> None:
    """The oracle's ids come from transformers' tokenizer and the text as it was before."""
    reference = PreTrainedTokenizerFast(tokenizer_file=str(subject.tokenizer_file))
    texts = dialogues[:4]
    assert all("\n" in text for text in texts)
    sources = [np.array(reference(text)["input_ids"], dtype=np.int32) for text in texts]
    settings = GenerationSettings(num_beams=4, max_new_tokens=20)
    calls = [
        (subject.tokenizer.encode(text.replace("\n", line_end)).input_ids, settings)
        for text in texts
    ]
    answers = subject.runtime.generate_each(calls)
    for source, ours, theirs in zip(
        sources, answers, subject.oracle.generate(sources, settings), strict=True
    ):
        gap = 0.0 if ours == theirs else subject.oracle.gap(source, settings, theirs, ours)
        assert abs(gap) < _TIE, (theirs, ours)


@pytest.fixture(scope="module")
def texts(dialogues: list[str], sentences: list[str]) -> list[str]:
    """Dialogues, and other sentences joined to many lengths."""
    rng = random.Random(3)
    counts = (1, 1, 2, 5, 12, 30, 70, 90)
    joined = [" ".join(rng.sample(sentences, count)) for count in counts]
    return [*dialogues, *joined, "네", "\n".join(rng.sample(dialogues, 8))]


def _checkpoint(name: str, folder: Path) -> Path:
    if name == "kobart-mini":
        return MINI_CHECKPOINT
    real_tokenizer = SHARED / "kobart_tokenizer" / "tokenizer.json"
    mini_tokenizer = MINI_CHECKPOINT / "tokenizer.json"
    kinds: dict[str, tuple[SeededCheckpoint, Path]] = {
        "usr-start": (USR_START, real_tokenizer if real_tokenizer.exists() else mini_tokenizer),
        "deep-decoder": (DEEP_DECODER, mini_tokenizer),
    }
    kind, tokenizer = kinds[name]
    return kind.save(folder, tokenizer)


def _cases(subject: Subject, texts: list[str]) -> list[tuple[GenerationSettings, list[np.ndarray]]]:
    """Settings in which every value of every field occurs, each with sources of its own.

    The sources of one setting are neighbours in length: `generate()` pads a batch to its longest
    source and copies the padded cross-attention K/V at every step of a beam search.
    """
    rng = random.Random(subject.name)
    columns = {
        field: _shuffled_cycle(values, _NUM_SETTINGS, rng) for field, values in _CHOICES.items()
    }
    settings = [
        GenerationSettings(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]
    sources = sorted((subject.tokenizer.encode(text).input_ids for text in texts), key=len)
    last = len(sources) - _NUM_SOURCES
    starts = [last * index // (_NUM_SETTINGS - 1) for index in range(_NUM_SETTINGS)]
    rng.shuffle(starts)
    return [
        (setting, sources[start : start + _NUM_SOURCES])
        for setting, start in zip(settings, starts, strict=True)
    ]


def _shuffled_cycle(values: tuple, count: int, rng: random.Random) -> list:
    cycle = [values[index % len(values)] for index in range(count)]
    rng.shuffle(cycle)
    return cycle
