"""Int8 products inside a float16 graph: what TensorRT builds int8 plans from.

In the portable Q/DQ graph all that is not int8 is float32, attention and K/V included, and a
strongly typed TensorRT keeps it so. Here it is float16, as in an fp16 build: attention can be
fused, and the cache takes half the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builders.half_precision import OVERFLOW_DOCUMENTS, convert_to_half
from calibration.documents import DocumentSet
from calibration.feeds import decoder_feeds, encoder_feeds
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, ModelShape
from kobart_runtime.onnxruntime_runner import OnnxRuntimeEncoder, OnnxRuntimeRunner

KIND = "qdq-float16"


def write_int8_half(
    source: Path,
    files: Mapping[str, str],
    target: Path,
    shape: ModelShape,
    documents: DocumentSet,
) -> tuple[str, ...]:
    """Write both graphs.

    Args:
        source: Folder of the portable Q/DQ graphs.
        files: Name of a graph -> its file in `source`.
        target: Folder to write to.
        shape: Their dimensions.
        documents: What to look for overflows on; a sample of them is enough.

    Returns:
        `GRAPH:NODE` names of what stays float32 because its values are too large for float16.

    Raises:
        BuildError: A value at the border (K/V) is too large for float16.
    """
    documents = documents.sample(OVERFLOW_DOCUMENTS)
    encoder = OnnxRuntimeEncoder(source / files[ENCODER_FILE], shape)
    runner = OnnxRuntimeRunner(source, shape, encoder=encoder, decoder_file=files[DECODER_FILE])
    feeds = {
        ENCODER_FILE: encoder_feeds(documents),
        DECODER_FILE: decoder_feeds(documents, runner),
    }
    kept = []
    for name, feed in feeds.items():
        path = target / name
        path.unlink(missing_ok=True)  # it may be a link, whose other name stays
        kept += [f"{name}:{node}" for node in convert_to_half(source / files[name], path, feed)]
    return tuple(kept)
