"""What runs the encoder of an int8 build on CPUs: ONNX Runtime, or OpenVINO where it is faster.

OpenVINO uses the matrix units (AMX) of processors that have them and reads the portable graph.
Where both are timed, it is on the build's documents, one source at a time: no two need be of the
same length, as in production, and OpenVINO makes new kernels for a length that it has not seen for
a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from builders.agreement import Teacher
from builders.choosing import AS_ASKED, Policy, encoder_engine, settle
from builders.precision import PORTABLE_FILES
from builders.repository import link
from builders.timing import best_ms
from calibration.documents import DocumentSet, pad
from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import ENCODER_FILE, ModelShape
from kobart_runtime.onnxruntime_runner import Encoder, OnnxRuntimeEncoder, OnnxRuntimeRunner

MAX_DOCUMENTS = 32


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """What runs the encoder and why; stands in the manifest."""

    engine: str  # "onnxruntime" or "openvino"
    reason: str
    fell_back: bool = False  # OpenVINO was to be taken, and is below the accuracy gate
    encode_ms: dict[str, float] = field(default_factory=dict)  # engine -> mean time, if timed
    # Share of equal tokens if OpenVINO encodes, 0..1; None: it was not tried.
    openvino_agreement: float | None = None


def find_openvino(asked: str) -> Any:
    """The module that knows OpenVINO; None if it is not installed or not wanted.

    Args:
        asked: The build's `encoder_engine`.

    Raises:
        ConfigError: It was asked for and cannot be imported.
    """
    if asked == "onnxruntime":
        return None
    try:
        return import_module("kobart_runtime.openvino_encoder")
    except ImportError as error:
        if asked == "openvino":
            raise ConfigError(
                f"--encoder-engine openvino: OpenVINO cannot be imported ({error}): "
                "pip install openvino, or leave the flag out"
            ) from error
        return None


def choose_encoder(
    asked: str,
    policy: Policy,
    folder: Path,
    shape: ModelShape,
    documents: DocumentSet,
    teacher: Teacher,
) -> EncoderChoice:
    """Choose, and make `encoder.onnx` the graph that the chosen engine runs.

    Args:
        asked: The build's `encoder_engine`.
        policy: What to choose by if that is "auto".
        folder: Holds the int8 graphs that ONNX Runtime would run, and the portable ones.
        shape: Their dimensions.
        documents: What to encode if it is timed.
        teacher: The checkpoint's choices, to compare with.

    Raises:
        ConfigError: OpenVINO was asked for and cannot be imported.
        EngineError: An engine cannot be loaded or run.
    """
    if asked == "onnxruntime":
        return EncoderChoice(engine=asked, reason=AS_ASKED)
    module = find_openvino(asked)
    rule = encoder_engine(policy.processor, has_openvino=module is not None)
    if module is None or (asked == "auto" and not policy.tune and rule.taken == "onnxruntime"):
        return EncoderChoice(engine=rule.taken, reason=rule.reason)
    encoder = module.OpenVinoEncoder(folder / PORTABLE_FILES[ENCODER_FILE], shape)
    agreement = teacher.agreement_of(OnnxRuntimeRunner(folder, shape, encoder=encoder))
    times: dict[str, float] = {}
    if policy.tune:
        ours = OnnxRuntimeEncoder(folder / ENCODER_FILE, shape)
        times = encode_ms({"onnxruntime": ours, "openvino": encoder}, documents)
    choice = settle(asked, rule, times, "source", agreement, policy.gate, default="onnxruntime")
    if choice.taken == "openvino":
        (folder / ENCODER_FILE).unlink()
        link(folder / PORTABLE_FILES[ENCODER_FILE], folder / ENCODER_FILE)
    return EncoderChoice(
        engine=choice.taken,
        reason=choice.reason,
        fell_back=choice.fell_back,
        encode_ms=times,
        openvino_agreement=agreement,
    )


def encode_ms(encoders: Mapping[str, Encoder], documents: DocumentSet) -> dict[str, float]:
    """Mean milliseconds to encode a source alone: the best of some rounds, taken in turn.

    Args:
        encoders: Name -> encoder.
        documents: A sample of them is encoded.
    """
    sources = [pad([each.input_ids]) for each in documents.sample(MAX_DOCUMENTS).documents]
    times = best_ms(
        {name: partial(_encode, sources, encoder) for name, encoder in encoders.items()}
    )
    return {name: round(ms / len(sources), 2) for name, ms in times.items()}


def _encode(sources: Sequence[tuple[np.ndarray, np.ndarray]], encoder: Encoder) -> None:
    for input_ids, mask in sources:
        encoder.encode(input_ids, mask)
