"""A model in memory -> the ONNX graphs that `TensorRTOptimizer` builds its plans from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import BartForConditionalGeneration

from builders.export import export_decoder, export_encoder
from builders.int8_half import write_int8_half
from builders.precision import make_half
from builders.quantize_qdq import quantize_qdq
from calibration.calibrator import calibrate
from calibration.documents import MAX_SUMMARY_IDS, Document, DocumentSet
from calibration.scales import GRAPH_FILES
from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, ModelShape
from kobart_runtime.settings import Limits

# Source ids and summary ids of some documents.
IdPairs = Sequence[tuple[Sequence[int], Sequence[int]]]


def export_graphs(model: BartForConditionalGeneration, folder: Path, shape: ModelShape) -> None:
    """Write the float32 graphs."""
    export_encoder(model, folder / ENCODER_FILE)
    export_decoder(model, folder / DECODER_FILE, shape.num_candidates, joined=True)


def half_graphs(graphs: Path, shape: ModelShape, limits: Limits) -> Path:
    """Float16 graphs below those of float32; random ids show which values would overflow."""
    target = graphs / "fp16"
    target.mkdir()
    make_half(graphs, target, shape, _random_documents(shape, limits))
    return target


def int8_graphs(graphs: Path, shape: ModelShape, documents: DocumentSet) -> Path:
    """Int8 products in float16 graphs below those of float32, calibrated by entropy."""
    quantized, target = graphs / "qdq", graphs / "int8"
    quantized.mkdir()
    target.mkdir()
    scales = calibrate(graphs, shape, documents)
    for name in GRAPH_FILES:
        quantize_qdq(graphs / name, quantized / name, scales.scales[name], [])
    files = {name: name for name in GRAPH_FILES}
    write_int8_half(quantized, files, target, shape, documents)
    return target


def document_set(
    pairs: IdPairs, decoder_start: int, vocab_size: int, limits: Limits
) -> DocumentSet:
    """Documents as a calibration takes them, cut to the limits.

    Raises:
        ConfigError: There are none, one is empty, or an id is not in the vocabulary.
    """
    if not pairs:
        raise ConfigError("documents is empty: give some (source ids, summary ids)")
    longest = min(limits.max_target_length, MAX_SUMMARY_IDS)
    made = [
        Document(
            _ids(source, vocab_size)[: limits.max_source_length],
            (decoder_start, *_ids(summary, vocab_size))[:longest],
        )
        for source, summary in pairs
    ]
    made.sort(key=lambda document: (-len(document.input_ids), document.input_ids))
    return DocumentSet(hashlib.sha256(repr(made).encode()).hexdigest(), tuple(made))


def _ids(given: Sequence[int], vocab_size: int) -> tuple[int, ...]:
    ids = tuple(map(int, given))
    if not ids or not all(0 <= each < vocab_size for each in ids):
        raise ConfigError(
            f"documents hold lists of ids 0..{vocab_size - 1}, none of them empty, got {given!r}"
        )
    return ids


def _random_documents(shape: ModelShape, limits: Limits) -> DocumentSet:
    rng = np.random.default_rng(0)
    length, steps = min(64, limits.max_source_length), min(16, limits.max_target_length)
    documents = tuple(
        Document(
            tuple(rng.integers(shape.vocab_size, size=length).tolist()),
            tuple(rng.integers(shape.vocab_size, size=steps).tolist()),
        )
        for _ in range(4)
    )
    return DocumentSet("random ids", documents)
