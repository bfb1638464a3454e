"""Which products int8 should leave alone: those that move the engines' answers most.

Each product is quantised by itself and the float32 engines' answers are compared with the result:
the mean difference of the best candidates' log-probabilities along some summaries. Then the
products are left out, the most sensitive first, until the checkpoint's choices are met.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from tqdm import tqdm

from builders.quantize_qdq import quantize_qdq
from calibration.documents import DocumentSet
from calibration.feeds import MAX_SOURCE_IDS, forced_steps
from calibration.graph import weight_products
from calibration.scales import GRAPH_FILES, Scales
from kobart_runtime.model_config import ModelShape
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

MAX_DOCUMENTS = 8  # each product costs one run over them
MAX_SHARE = 0.25  # of the products; a model that needs more is not for int8
MAX_WEIGHT_SHARE = 1 / 3  # of a graph's weights: the greater part of an int8 graph is int8

Write = Callable[[Scales, tuple[str, ...]], float]


def leave_out(
    source: Path,
    shape: ModelShape,
    scales: Scales,
    documents: DocumentSet,
    write: Write,
    aim: float,
) -> tuple[str, ...]:
    """The most sensitive products, twice as many each time until the aim is reached.

    Args:
        source: Folder of the float32 graphs.
        shape: Their dimensions.
        scales: Of their activations.
        documents: What to measure on.
        write: Writes int8 graphs without some products and tells their agreement, 0..1.
        aim: The agreement to reach.

    Returns:
        `GRAPH:NODE` names; at most MAX_SHARE of the products and MAX_WEIGHT_SHARE of each graph's
        weights, though the aim be missed.
    """
    ranked = rank(source, shape, scales, documents.sample(MAX_DOCUMENTS))
    leavable = _leavable(source, ranked)[: max(1, int(len(ranked) * MAX_SHARE))]
    count = 1
    while count < len(leavable) and write(scales, tuple(leavable[:count])) < aim:
        count *= 2
    return tuple(leavable[:count])


def _leavable(source: Path, ranked: Sequence[str]) -> list[str]:
    """Those that together are no more than MAX_WEIGHT_SHARE of their graph's weights."""
    sizes = {graph: _weight_sizes(source / graph) for graph in GRAPH_FILES}
    room = {graph: MAX_WEIGHT_SHARE * sum(sizes[graph].values()) for graph in GRAPH_FILES}
    chosen = []
    for name in ranked:
        graph, _, node = name.partition(":")
        if sizes[graph][node] <= room[graph]:
            room[graph] -= sizes[graph][node]
            chosen.append(name)
    return chosen


def _weight_sizes(path: Path) -> dict[str, int]:
    """Numbers in the weight of each product of a graph, by node."""
    model = onnx.load(path)
    dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return {product.node: prod(dims[product.weight]) for product in weight_products(model)}


def rank(source: Path, shape: ModelShape, scales: Scales, documents: DocumentSet) -> list[str]:
    """All products as `GRAPH:NODE`, the most sensitive first."""
    products = {
        graph: [product.node for product in weight_products(onnx.load(source / graph))]
        for graph in GRAPH_FILES
    }
    expected = _answers(source, shape, documents)
    errors = {}
    candidates = [(graph, node) for graph in GRAPH_FILES for node in products[graph]]
    bar = tqdm(candidates, "sensitivity", unit="product", leave=False, position=1, disable=None)
    for graph, node in bar:
        others = [other for other in products[graph] if other != node]
        with TemporaryDirectory(dir=source) as folder:
            probe = Path(folder)
            for name in GRAPH_FILES:
                shutil.copyfile(source / name, probe / name)
            quantize_qdq(source / graph, probe / graph, scales.scales[graph], others)
            errors[f"{graph}:{node}"] = _difference(_answers(probe, shape, documents), expected)
    return sorted(errors, key=lambda name: -errors[name])


def _answers(folder: Path, shape: ModelShape, documents: DocumentSet) -> list[np.ndarray]:
    """Log-probabilities of the candidates along the summaries, float32[R, 1, K] a step."""
    runner = OnnxRuntimeRunner(folder, shape)
    return [
        step.output.candidate_logprobs
        for batch in documents.batches(MAX_DOCUMENTS, MAX_SOURCE_IDS)
        for step in forced_steps(batch, runner)
    ]


def _difference(answers: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    pairs = zip(answers, expected, strict=True)
    return float(np.mean(np.concatenate([np.abs(a - b).ravel() for a, b in pairs])))
