"""ROUGE-L of a trained model's summaries, by PyTorch and by the builds, with the same settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.our_runtime import OurRuntime, open_tokenizer
from benchmarks.systems import TorchGenerate
from client.rouge import rouge_l_means
from kobart_documents import Pair
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig


def build_rouge(build: Path, documents: Sequence[Pair]) -> float:
    """ROUGE-L of a build, F1 on characters, 0..1."""
    runtime = OurRuntime(build)
    try:
        return _rouge(documents, runtime.summarize([pair.text for pair in documents]))
    finally:
        runtime.close()


def torch_rouge(torch: TorchGenerate, build: Path, documents: Sequence[Pair]) -> float:
    """The same of PyTorch, with a build's tokenizer and settings; one document at a time."""
    config = ModelConfig.from_manifest(build / MANIFEST_NAME)
    tokenizer = open_tokenizer(build, config)
    sources = [tokenizer.encode(document.text).input_ids for document in documents]
    answers = [torch.generate([source], config.defaults)[0] for source in sources]
    return _rouge(documents, [tokenizer.decode(ids) for ids in answers])


def _rouge(documents: Sequence[Pair], summaries: Sequence[str]) -> float:
    return rouge_l_means([document.summary for document in documents], summaries).characters
