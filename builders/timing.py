"""Which of several engine pairs is faster on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from calibration.documents import Document, DocumentSet
from calibration.feeds import forced_steps
from kobart_runtime.model_config import ModelShape
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

MAX_DOCUMENTS = 8  # of the timed batch
NUM_ROUNDS = 3


def batch_ms(
    folders: Mapping[str, Path], shape: ModelShape, documents: DocumentSet
) -> dict[str, float]:
    """Milliseconds to encode and decode one batch: the best of some rounds, taken in turn.

    Args:
        folders: Name -> folder of an encoder and a decoder.
        shape: Their dimensions.
        documents: The batch is a sample of them.
    """
    batch = documents.sample(MAX_DOCUMENTS).documents
    runners = {name: OnnxRuntimeRunner(folder, shape) for name, folder in folders.items()}
    # Turns, so that what else the machine does hits all of them.
    rounds = [
        {name: _once(batch, runner) for name, runner in runners.items()} for _ in range(NUM_ROUNDS)
    ]
    return {name: round(min(times[name] for times in rounds), 1) for name in folders}


def _once(batch: Sequence[Document], runner: OnnxRuntimeRunner) -> float:
    started = time.perf_counter()
    for _ in forced_steps(batch, runner):
        pass
    return 1000 * (time.perf_counter() - started)
