"""What int8 costs in summaries: ROUGE-L against the references of kobart-mini's test split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.systems import OurRuntime
from builders.config import BuildConfig
from builders.pipeline import build
from kobart_runtime.model_config import MANIFEST_NAME, TOKENIZER_FILE, ModelConfig
from kobart_runtime.tokenizer import Tokenizer
from tests.conftest import MINI_CHECKPOINT

LEAST_KEPT = 0.99  # of the fp32 build's score


def rouge_l(reference: str, summary: str) -> float:
    """F1 of the longest common subsequence of letters; words are too coarse for Korean."""
    a, b = ("".join(text.split()) for text in (reference, summary))
    lengths = np.zeros(len(b) + 1, int)
    for letter in a:
        diagonal = lengths[:-1] + np.array([letter == other for other in b], int)
        lengths[1:] = np.maximum.accumulate(np.maximum(diagonal, lengths[1:]))
    return 2 * int(lengths[-1]) / (len(a) + len(b)) if a or b else 1.0


def score(built: Path, documents: list[dict[str, str]]) -> float:
    config = ModelConfig.from_manifest(built / MANIFEST_NAME)
    tokenizer = Tokenizer(
        built / config.name / "1" / TOKENIZER_FILE,
        config.tokenizer,
        config.ids,
        max_source_length=config.limits.max_source_length,
        vocab_size=config.shape.vocab_size,
    )
    runtime = OurRuntime(built)
    sources = [tokenizer.encode(document["dialogue"]).input_ids for document in documents]
    answers = runtime.generate_each([(source, config.defaults) for source in sources])
    runtime.close()
    pairs = zip(documents, answers, strict=True)
    return float(np.mean([rouge_l(doc["summary"], tokenizer.decode(ids)) for doc, ids in pairs]))


def test_the_score_itself() -> None:
    assert rouge_l("가나다", "가 나다") == 1
    assert rouge_l("가나다라", "나라마바") == 0.5
    assert rouge_l("가", "나") == 0


@pytest.mark.slow
def test_int8_keeps_the_summaries(mini_build: Path, tmp_path: Path) -> None:
    output = tmp_path / "int8"
    build(BuildConfig(checkpoint=str(MINI_CHECKPOINT), precision="int8", output=str(output)))
    lines = (MINI_CHECKPOINT / "test.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in lines]
    assert score(output, documents) >= LEAST_KEPT * score(mini_build, documents)
