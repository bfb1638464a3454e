"""Float32 engines and documents -> int8 scales of everything that enters a product with weights.

The encoder sees the documents, the decoder real decode steps along their summaries, with caches
of several lengths. One batch is in memory at a time, however many documents there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from tqdm import tqdm

from calibration.activations import observe
from calibration.documents import DocumentSet
from calibration.feeds import Feed, decoder_feeds, encoder_feeds
from calibration.graph import weight_products
from calibration.ranges import LARGEST_INT8, Ranges, method_named
from calibration.scales import Scales, graph_sha256
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, ModelShape
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

SMALLEST_RANGE = 1e-6  # of a tensor that was 0 throughout


def calibrate(
    folder: Path,
    shape: ModelShape,
    documents: DocumentSet,
    *,
    method: str = "entropy",
    progress: bool = False,
) -> Scales:
    """Calibrate both graphs. Nothing is written.

    Args:
        folder: Holds the float32 `encoder.onnx` and `decoder.onnx`.
        shape: Their dimensions.
        documents: What to run; their order in the file does not matter.
        method: "entropy", or "minmax" to compare with.
        progress: Show a bar on standard error, if that is a terminal.

    Raises:
        ConfigError: There is no such method.
        EngineError: A graph failed.
    """
    ranges_of = method_named(method)
    runner = OnnxRuntimeRunner(folder, shape)
    feeds = {
        ENCODER_FILE: encoder_feeds(documents),
        DECODER_FILE: decoder_feeds(documents, runner),
    }
    scales = {}
    for name, feed in feeds.items():
        shown = _shown(name, feed) if progress else feed
        tensors = activation_tensors(folder / name)
        scales[name] = _scales(ranges_of(observe(folder / name, tensors, shown)))
    return Scales(
        method=method,
        documents=documents.sha256,
        num_documents=len(documents.documents),
        models={name: graph_sha256(folder / name) for name in feeds},
        scales=scales,
    )


def activation_tensors(path: Path) -> list[str]:
    """The tensors of a graph that enter products with weights, each once, in its order."""
    products = weight_products(onnx.load(path))
    return list(dict.fromkeys(product.activation for product in products))


def _scales(ranges: Ranges) -> dict[str, float]:
    return {name: max(peak, SMALLEST_RANGE) / LARGEST_INT8 for name, peak in ranges.items()}


def _shown(name: str, feeds: Iterable[Feed]) -> Iterator[Feed]:
    # Below the line that a build has begun to print, and gone when the work is done.
    yield from tqdm(
        feeds, desc=f"calibrate {name}", unit="batch", leave=False, position=1, disable=None
    )
