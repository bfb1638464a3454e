"""Fill the hand-written config.pbtxt files of model_repository/ for one build.

They are read and written through Triton's own protobuf. What a build decides is filled in here:
names, batch size, the tensors of every decoder layer, and their sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from kobart_runtime import bindings
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import ModelShape

FIRST_LAYER = ".0."
DYNAMIC = -1


@dataclass(frozen=True)
class PlanModel:
    """A plan that Triton's own TensorRT backend runs."""

    file_name: str
    num_profiles: int
    kv_precision: str | None  # of keys and values


def front_config(source: Path, name: str) -> str:
    """config.pbtxt of the front model."""
    config = _parse(source)
    config.name = name
    return _text(config, source)


def engine_config(
    source: Path,
    name: str,
    shape: ModelShape,
    max_batch_size: int,
    precision: str = "fp32",
    plan: PlanModel | None = None,
) -> str:
    """config.pbtxt of an engine; layer 0's tensors in the source stand for every layer's.

    Args:
        source: The hand-written file.
        name: Of the model.
        shape: The engine's dimensions.
        max_batch_size: Requests of one call.
        precision: Of the engine.
        plan: What Triton's TensorRT backend runs; None leaves the python backend of the source.
    """
    config = _parse(source)
    config.name = name
    config.max_batch_size = max_batch_size
    kv_precision = plan.kv_precision if plan else precision
    for tensors in (config.input, config.output):
        _spread_layers(tensors, shape.num_decoder_layers)
        for tensor in tensors:
            tensor.dims[:] = _dims(tensor.name, shape)
            if kv_precision == "fp16" and bindings.is_kv(tensor.name):
                tensor.data_type = model_config_pb2.TYPE_FP16
    if plan:
        _run_by_tensorrt(config, plan)
    return _text(config, source)


def _run_by_tensorrt(config: model_config_pb2.ModelConfig, plan: PlanModel) -> None:
    config.backend, config.platform = "tensorrt", "tensorrt_plan"
    config.default_model_filename = plan.file_name
    del config.instance_group[:]
    config.instance_group.add(
        count=1,
        kind=model_config_pb2.ModelInstanceGroup.KIND_GPU,
        profile=[str(index) for index in range(plan.num_profiles)],
    )


def _dims(name: str, shape: ModelShape) -> list[int]:
    """Sizes of an engine's tensor without the leading R, which is Triton's batch dimension."""
    if name == bindings.POSITION_IDS:
        return [1]
    if name == bindings.DECODER_ATTENTION_MASK:
        return [DYNAMIC, DYNAMIC]
    if name == bindings.LOGITS:
        return [DYNAMIC, shape.vocab_size]
    if name in (bindings.CANDIDATE_LOGPROBS, bindings.CANDIDATE_IDS):
        return [DYNAMIC, shape.num_candidates]
    if bindings.is_kv(name):
        return [shape.num_heads, DYNAMIC, shape.head_dim]
    return [DYNAMIC]


def _spread_layers(tensors: Any, num_layers: int) -> None:
    """Repeat the tensors of layer 0 for the other layers, in a protobuf list."""
    templates = [tensor for tensor in tensors if FIRST_LAYER in tensor.name]
    for layer in range(1, num_layers):
        for template in templates:
            tensor = tensors.add()
            tensor.CopyFrom(template)
            tensor.name = template.name.replace(FIRST_LAYER, f".{layer}.")


def _parse(source: Path) -> model_config_pb2.ModelConfig:
    try:
        return text_format.Parse(source.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except (OSError, text_format.ParseError) as error:
        raise BuildError(f"{source} cannot be read: {error}") from error


def _text(config: model_config_pb2.ModelConfig, source: Path) -> str:
    origin = Path(*source.parts[-3:])
    header = f"# Written by kobart-build from {origin}: change that file and build again.\n"
    return header + text_format.MessageToString(config, use_short_repeated_primitives=True)
