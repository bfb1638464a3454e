"""How fast builds summarize the same documents, taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scoring import Judge
from benchmarks.systems import OurRuntime, TorchGenerate
from builders.checkpoint import load_checkpoint
from builders.prune_ledger import num_params
from builders.special_ids import IdOverrides
from client.rouge import rouge_l_means
from kobart_runtime.model_config import TOKENIZER_FILE, TokenizerConfig
from kobart_runtime.settings import Limits
from kobart_runtime.tokenizer import Tokenizer

BATCH_SIZE = 8  # of PyTorch's generate(), neighbours in length
PYTORCH = "pytorch"


class TorchSummarizer:
    """`transformers` `generate()` in fp32 with a checkpoint's own settings, text to text."""

    def __init__(self, checkpoint: Path) -> None:
        """Load it.

        Raises:
            KobartError: It cannot be used.
        """
        loaded = load_checkpoint(str(checkpoint), IdOverrides())
        self.num_parameters = num_params(loaded.model)
        self._settings = loaded.defaults
        self._generate = TorchGenerate(loaded)
        self._tokenizer = Tokenizer(
            checkpoint / TOKENIZER_FILE,
            TokenizerConfig(),
            loaded.ids,
            max_source_length=Limits.max_source_length,
            vocab_size=loaded.vocab_size,
        )

    def generate(self, texts: Sequence[str]) -> list[list[int]]:
        """Generated ids of each text, in order."""
        sources = [self._tokenizer.encode(text).input_ids for text in texts]
        order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
        answers: list[list[int]] = [[]] * len(sources)
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            rows = self._generate.generate([sources[i] for i in batch], self._settings)
            for index, ids in zip(batch, rows, strict=True):
                answers[index] = ids
        return answers

    def summarize(self, texts: Sequence[str]) -> list[str]:
        """Summaries in order."""
        return [self._tokenizer.decode(ids) for ids in self.generate(texts)]


def pytorch_score(checkpoint: Path, judge: Judge) -> dict[str, Any]:
    """ROUGE-L of the checkpoint itself by `generate()`, 0..1."""
    system = TorchSummarizer(checkpoint)
    rouge = rouge_l_means(judge.references, system.summarize(judge.dialogues))
    return {
        "rouge_l_characters": rouge.characters,
        "rouge_l_words": rouge.words,
        "parameters": system.num_parameters,
    }


def tokens_per_s(
    checkpoint: Path, builds: Mapping[str, Path], texts: Sequence[str], repeats: int
) -> dict[str, float]:
    """Generated tokens a second of PyTorch and of each build, all texts in flight together.

    Args:
        checkpoint: What PyTorch runs.
        builds: Name -> folder.
        texts: What is summarized, with the builds' own settings.
        repeats: Rounds in turn behind one that is not counted; the best counts.
    """
    ours = {name: OurRuntime(folder) for name, folder in builds.items()}
    systems: dict[str, Callable[[], Sequence[Sequence[int]]]] = {
        PYTORCH: lambda: torch_system.generate(texts)
    }
    torch_system = TorchSummarizer(checkpoint)
    for name, system in ours.items():
        systems[name] = lambda system=system: system.generate_texts(texts)  # type: ignore[misc]
    try:
        rounds = [{name: _speed(run) for name, run in systems.items()} for _ in range(repeats + 1)]
    finally:
        for system in ours.values():
            system.close()
    return {name: round(float(np.max([r[name] for r in rounds[1:]])), 1) for name in systems}


def _speed(run: Callable[[], Sequence[Sequence[int]]]) -> float:
    started = time.perf_counter()
    num_tokens = sum(len(ids) for ids in run())
    return num_tokens / (time.perf_counter() - started)
