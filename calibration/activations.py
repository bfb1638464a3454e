"""What flows through a graph: chosen tensors of each batch, without the padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from calibration.feeds import Feed
from calibration.graph import with_outputs, with_peaks
from kobart_runtime import bindings
from kobart_runtime.errors import EngineError
from kobart_runtime.onnxruntime_runner import run_session


def observe(
    path: Path, tensors: Sequence[str], feeds: Iterable[Feed]
) -> Iterator[dict[str, np.ndarray]]:
    """Run a graph and give the values of some of its tensors.

    Args:
        path: An ONNX file.
        tensors: Names of tensors of shape [R, T, ...], distinct.
        feeds: Inputs of the graph, batch by batch; nothing is kept of one when the next is taken.

    Yields:
        For each batch and tensor, the values of what is no padding, [rows, ...].

    Raises:
        EngineError: The graph has no such tensor, or failed.
    """
    session = _open(path, onnx.load(path), tensors)
    for feed in feeds:
        values = run_session(session, list(tensors), feed)
        mask = feed.get(bindings.ATTENTION_MASK)  # the encoder's; decode steps have no padding
        if mask is not None and not mask.all():  # without padding nothing need be copied
            values = [value[mask == 1] for value in values]
        yield dict(zip(tensors, values, strict=True))


def peaks(path: Path, tensors: Sequence[str], feeds: Iterable[Feed]) -> dict[str, float]:
    """Largest magnitude of some tensors, NaN if one was no number; found inside the graph.

    Args:
        path: An ONNX file.
        tensors: Names of float32 tensors of any shape, distinct.
        feeds: Inputs of the graph.

    Raises:
        EngineError: The graph has no such tensor, or failed.
    """
    model = onnx.load(path)
    named = with_peaks(model, tensors)
    session = _open(path, model, list(named.values()))
    found = dict.fromkeys(tensors, 0.0)
    for feed in feeds:
        values = run_session(session, list(named.values()), feed)
        for name, value in zip(named, values, strict=True):
            found[name] = float(np.maximum(found[name], value))  # keeps NaN
    return found


def _open(
    path: Path, model: onnx.ModelProto, tensors: Sequence[str]
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        graph = with_outputs(model, tensors)
        return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise EngineError(f"{path} cannot be loaded: {error}") from error
