"""ROUGE-L of a trained model's summaries, by PyTorch and by the builds, with the same settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.systems import OurRuntime, TorchGenerate
from kobart_runtime.model_config import MANIFEST_NAME, TOKENIZER_FILE, ModelConfig
from kobart_runtime.settings import GenerationSettings
from kobart_runtime.tokenizer import Tokenizer
from training.evaluate_mini import rouge_l_means

# Source ids of each document, and how to summarise them -> generated ids of each.
Summarize = Callable[[Sequence[np.ndarray], GenerationSettings], Sequence[Sequence[int]]]


def build_rouge(build: Path, documents: Sequence[dict[str, str]]) -> float:
    """ROUGE-L of a build, F1 on characters, 0..1."""
    runtime = OurRuntime(build)
    try:
        return _rouge(
            build,
            documents,
            lambda sources, settings: runtime.generate_each([(s, settings) for s in sources]),
        )
    finally:
        runtime.close()


def torch_rouge(torch: TorchGenerate, build: Path, documents: Sequence[dict[str, str]]) -> float:
    """The same of PyTorch, with a build's tokenizer and settings; one document at a time."""
    return _rouge(
        build,
        documents,
        lambda sources, settings: [torch.generate(s[None], settings)[0] for s in sources],
    )


def read_test_documents(path: Path, most: int) -> list[dict[str, str]]:
    """The first documents of a JSON lines file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:most]]


def _rouge(build: Path, documents: Sequence[dict[str, str]], summarize: Summarize) -> float:
    config = ModelConfig.from_manifest(build / MANIFEST_NAME)
    tokenizer = Tokenizer(
        build / config.name / "1" / TOKENIZER_FILE,
        config.tokenizer,
        config.ids,
        max_source_length=config.limits.max_source_length,
        vocab_size=config.shape.vocab_size,
    )
    sources = [tokenizer.encode(document["dialogue"]).input_ids for document in documents]
    answers = summarize(sources, config.defaults)
    summaries = [tokenizer.decode(ids) for ids in answers]
    return rouge_l_means([document["summary"] for document in documents], summaries).characters
