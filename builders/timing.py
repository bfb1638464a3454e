"""Which of several engine pairs is faster on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from builders.measuring import seconds
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
    times = best_ms({name: partial(_decode, batch, runner) for name, runner in runners.items()})
    return {name: round(ms, 1) for name, ms in times.items()}


def best_ms(calls: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Milliseconds of each call: the best of some rounds.

    They take turns, so that what else the machine does hits all of them.
    """
    rounds = [
        {name: 1000 * seconds(call) for name, call in calls.items()} for _ in range(NUM_ROUNDS)
    ]
    return {name: min(times[name] for times in rounds) for name in calls}


def _decode(batch: Sequence[Document], runner: OnnxRuntimeRunner) -> None:
    for _ in forced_steps(batch, runner):
        pass
