"""Documents -> what TensorRT calibrates both plans with: real batches and real decode steps."""

from __future__ import annotations

from pathlib import Path

from builders.plan_calibration import PlanCalibration, decoder_shapes, encoder_shapes
from calibration.documents import DocumentSet
from calibration.feeds import decoder_feeds, encoder_feeds
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, ModelShape
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner


def plan_calibrations(
    graphs: Path, shape: ModelShape, documents: DocumentSet, caches: Path
) -> tuple[PlanCalibration, PlanCalibration]:
    """The encoder's and the decoder's.

    Args:
        graphs: Folder of the float32 graphs; the decoder's caches are filled by them.
        shape: Their dimensions.
        documents: What to calibrate on.
        caches: Folder of the calibration caches.

    Raises:
        EngineError: A graph cannot be loaded.
    """
    runner = OnnxRuntimeRunner(graphs, shape)
    source_len = max(len(document.input_ids) for document in documents.documents)
    target_len = max(len(document.decoder_input_ids) for document in documents.documents)
    feeds = {
        ENCODER_FILE: lambda: encoder_feeds(documents),
        DECODER_FILE: lambda: decoder_feeds(documents, runner),
    }
    shapes = {
        ENCODER_FILE: encoder_shapes(source_len),
        DECODER_FILE: decoder_shapes(shape, source_len, target_len),
    }
    encoder, decoder = (
        PlanCalibration(
            shapes=sizes,
            feeds=feeds[name],
            caches=caches,
            documents=documents.sha256,
        )
        for name, sizes in shapes.items()
    )
    return encoder, decoder
