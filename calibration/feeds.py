"""Documents -> what the two engines are fed, one batch at a time.

The decoder is fed real decode steps: it is led along the reference summaries, each step with the
K/V that the engines themselves gave for the steps before. Nothing is kept but the caches of one
batch.

Shapes: R requests, S source length, C cache entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.documents import Document, DocumentSet, pad
from kobart_runtime import bindings
from kobart_runtime.model_runner import KvCache, ModelRunner, StepInputs, StepOutput
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

Feed = dict[str, np.ndarray]

MAX_DOCUMENTS = 16
MAX_SOURCE_IDS = 2048  # encoded at once: the widest activations of full-size KoBART take 24 MiB
MAX_CACHED_IDS = 8192  # decoded along: cross-attention K/V of full-size KoBART take 288 MiB
STEP_STRIDE = 4  # every how many decode steps one is recorded
CACHE_STRIDE = 32  # caches grow by as much at a time, as the runtime's do


@dataclass(frozen=True)
class Step:
    """One decode step of the first R documents of a batch, the longest summaries first."""

    number: int  # entries that are seen, from 0
    cache: Any  # of the runner's own kind
    inputs: StepInputs
    output: StepOutput


def encoder_feeds(documents: DocumentSet) -> Iterator[Feed]:
    """Ids and mask of each batch, int32[R, S]."""
    for batch in documents.batches(MAX_DOCUMENTS, MAX_SOURCE_IDS):
        input_ids, mask = pad([document.input_ids for document in batch])
        yield {bindings.INPUT_IDS: input_ids, bindings.ATTENTION_MASK: mask}


def decoder_feeds(documents: DocumentSet, runner: OnnxRuntimeRunner) -> Iterator[Feed]:
    """All inputs of some decode steps of each batch, with caches from empty to full.

    Args:
        documents: What to decode along.
        runner: The float engines, which fill the caches.

    Raises:
        EngineError: An engine failed.
    """
    for batch in documents.batches(MAX_DOCUMENTS, MAX_CACHED_IDS):
        for step in forced_steps(batch, runner):
            if step.number % STEP_STRIDE == 0:
                yield runner.step_feeds(step.cache, step.inputs)


def forced_steps(batch: Sequence[Document], runner: ModelRunner) -> Iterator[Step]:
    """Decode along the reference summaries, longest summary first; each step when it is done.

    The next step changes the cache: use it before asking for that.
    """
    ordered = by_summary(batch)
    lengths = [len(document.decoder_input_ids) for document in ordered]
    cache = _filled_cache(ordered, runner)
    for number in range(lengths[0]):
        if number == cache.num_entries:
            cache.resize(len(batch), len(batch), number + CACHE_STRIDE, cache.source_len)
        num_active = sum(length > number for length in lengths)
        last = [[document.decoder_input_ids[number]] for document in ordered[:num_active]]
        inputs = _step_inputs(np.array(last, np.int32), number, cache.num_entries)
        output = runner.decode_step(cache, inputs, want_logits=False)
        yield Step(number, cache, inputs, output)


def by_summary(batch: Sequence[Document]) -> list[Document]:
    """Longest summary first, so that those still being decoded are the first slots."""
    return sorted(batch, key=lambda document: -len(document.decoder_input_ids))


def _step_inputs(last: np.ndarray, number: int, num_entries: int) -> StepInputs:
    num_requests = len(last)
    visible = np.zeros((num_requests, 1, num_entries), np.int32)
    visible[:, :, :number] = 1
    return StepInputs(
        decoder_input_ids=last,
        position_ids=np.full((num_requests, 1), number, np.int32),
        decoder_attention_mask=visible,
        new_entries=np.full((num_requests, 1), number),
    )


def _filled_cache(batch: Sequence[Document], runner: ModelRunner) -> KvCache:
    longest = max(len(document.input_ids) for document in batch)
    cache = runner.new_cache(len(batch), CACHE_STRIDE, longest)
    num_encoded = max(1, MAX_SOURCE_IDS // longest)
    for start in range(0, len(batch), num_encoded):
        documents = batch[start : start + num_encoded]
        encoded = runner.encode(*pad([document.input_ids for document in documents]))
        for row, document in enumerate(documents):
            cache.put(start + row, encoded, row, len(document.input_ids))
    return cache
