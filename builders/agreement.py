"""How often the engines would choose the checkpoint's next token, along reference summaries.

Teacher forcing: both are led along the same summary, so that one different token does not make
all later ones different.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from builders.checkpoint import Checkpoint
from calibration.documents import Document, DocumentSet, pad
from calibration.feeds import by_summary, forced_steps
from kobart_runtime.model_config import ModelShape
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

MAX_DOCUMENTS = 16  # of a batch
MAX_SOURCE_IDS = 4096


class Teacher:
    """The checkpoint's own choices along some documents, computed once, when first needed."""

    def __init__(self, checkpoint: Checkpoint, documents: DocumentSet) -> None:
        self._batches = [
            by_summary(batch) for batch in documents.batches(MAX_DOCUMENTS, MAX_SOURCE_IDS)
        ]
        self._checkpoint = checkpoint

    @cached_property
    def _choices(self) -> list[list[np.ndarray]]:
        return [_choices(self._checkpoint, batch) for batch in self._batches]

    @property
    def num_tokens(self) -> int:
        """Tokens that are compared."""
        return sum(len(choices) for batch in self._choices for choices in batch)

    def agreement(self, folder: Path, shape: ModelShape) -> float:
        """Share of tokens for which the engines of a folder make the same choice, 0..1.

        Raises:
            EngineError: An engine cannot be loaded or run.
        """
        return self.agreement_of(OnnxRuntimeRunner(folder, shape))

    def agreement_of(self, runner: ModelRunner) -> float:
        """The same for engines that are open already, whatever runs them."""
        equal = sum(
            _num_equal(runner, batch, choices)
            for batch, choices in zip(self._batches, self._choices, strict=True)
        )
        return equal / self.num_tokens


def _choices(checkpoint: Checkpoint, batch: Sequence[Document]) -> list[np.ndarray]:
    """The checkpoint's best token behind each decoder input, int64[T] for each document."""
    input_ids, mask = pad([document.input_ids for document in batch])
    decoder_ids, _ = pad([document.decoder_input_ids for document in batch])
    with torch.inference_mode():
        logits = checkpoint.model(
            input_ids=torch.from_numpy(input_ids).long(),
            attention_mask=torch.from_numpy(mask),
            decoder_input_ids=torch.from_numpy(decoder_ids).long(),
            use_cache=False,
        ).logits
    best = logits.argmax(-1).numpy()
    return [best[row, : len(document.decoder_input_ids)] for row, document in enumerate(batch)]


def _num_equal(
    runner: ModelRunner, batch: Sequence[Document], choices: Sequence[np.ndarray]
) -> int:
    equal = 0
    for step in forced_steps(batch, runner):
        best = step.output.candidate_ids[:, 0, 0]
        expected = [choices[row][step.number] for row in range(len(best))]
        equal += int((best == expected).sum())
    return equal
