"""The peers answer as they should before anybody compares their speed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer

from benchmarks.systems import CTranslate2Generate, TorchGenerate
from builders.checkpoint import Checkpoint, load_checkpoint
from builders.special_ids import IdOverrides
from kobart_runtime.settings import GenerationSettings
from tests.conftest import MINI_CHECKPOINT

GREEDY = GenerationSettings(num_beams=1, max_new_tokens=64, no_repeat_ngram_size=3)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(str(MINI_CHECKPOINT), IdOverrides())


@pytest.fixture(scope="module")
def sources(dialogues: list[str]) -> list[np.ndarray]:
    tokenizer = Tokenizer.from_file(str(MINI_CHECKPOINT / "tokenizer.json"))
    return [np.array(tokenizer.encode(text).ids, np.int32) for text in dialogues[:8]]


@pytest.fixture(scope="module")
def torch_generate(checkpoint: Checkpoint) -> TorchGenerate:
    return TorchGenerate(checkpoint)


@pytest.fixture(scope="module")
def ctranslate2_float(checkpoint: Checkpoint) -> CTranslate2Generate:
    pytest.importorskip("ctranslate2", reason="pip install 'kobart-triton[peers]'")
    return CTranslate2Generate(checkpoint)


def test_padding_changes_no_answer(
    torch_generate: TorchGenerate, sources: list[np.ndarray]
) -> None:
    few = sources[:4]
    together = torch_generate.generate(few, GREEDY)
    assert together == [torch_generate.generate([source], GREEDY)[0] for source in few]
    assert len({len(ids) for ids in together}) > 1


@pytest.mark.parametrize(
    "settings",
    [
        GREEDY,
        replace(GREEDY, max_new_tokens=7),
        replace(GREEDY, min_new_tokens=40),
        replace(GREEDY, repetition_penalty=1.3, no_repeat_ngram_size=0),
    ],
    ids=["as served", "cut by the limit", "long", "repetition"],
)
def test_ctranslate2_gives_the_ids_of_pytorch(
    torch_generate: TorchGenerate,
    ctranslate2_float: CTranslate2Generate,
    sources: list[np.ndarray],
    settings: GenerationSettings,
) -> None:
    answers = ctranslate2_float.generate(sources, settings)
    assert answers == torch_generate.generate(sources, settings)


def test_ctranslate2_int8_is_smaller_and_nearly_the_same(
    checkpoint: Checkpoint, ctranslate2_float: CTranslate2Generate, sources: list[np.ndarray]
) -> None:
    int8 = CTranslate2Generate(checkpoint, "int8")
    assert int8.model_bytes < 0.4 * ctranslate2_float.model_bytes
    pairs = zip(
        int8.generate(sources, GREEDY), ctranslate2_float.generate(sources, GREEDY), strict=True
    )
    assert np.mean([a[:5] == b[:5] for a, b in pairs]) > 0.5
