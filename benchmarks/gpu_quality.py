"""ROUGE-L of a trained model's summaries, by PyTorch and by the builds, with the same settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.our_runtime import OurRuntime, open_tokenizer
from benchmarks.systems import TorchGenerate
from client.rouge import rouge_l_means
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig

Document = dict[str, str]


def build_rouge(build: Path, documents: Sequence[Document]) -> float:
    """ROUGE-L of a build, F1 on characters, 0..1."""
    runtime = OurRuntime(build)
    try:
        return _rouge(documents, runtime.summarize([doc["dialogue"] for doc in documents]))
    finally:
        runtime.close()


def torch_rouge(torch: TorchGenerate, build: Path, documents: Sequence[Document]) -> float:
    """The same of PyTorch, with a build's tokenizer and settings; one document at a time."""
    config = ModelConfig.from_manifest(build / MANIFEST_NAME)
    tokenizer = open_tokenizer(build, config)
    sources = [tokenizer.encode(document["dialogue"]).input_ids for document in documents]
    answers = [torch.generate([source], config.defaults)[0] for source in sources]
    return _rouge(documents, [tokenizer.decode(ids) for ids in answers])


def read_test_documents(path: Path, most: int) -> list[Document]:
    """The first documents of a JSON lines file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:most]]


def _rouge(documents: Sequence[Document], summaries: Sequence[str]) -> float:
    return rouge_l_means([document["summary"] for document in documents], summaries).characters
