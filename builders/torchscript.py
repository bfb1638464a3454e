"""PyTorch checkpoint -> TorchScript: the same two modules as in ONNX, traced and frozen.

Tensors keep the order of the ONNX files' (`kobart_runtime/torchscript_runner.py` names them).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration

from builders.artefact import Artefact, shares_of
from builders.export import DecodeStep, EncoderWithCrossKv
from kobart_runtime.errors import BuildError
from kobart_runtime.torchscript_runner import load_module

PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
# Shapes that the traced modules are compared with the originals on; the first is traced with.
ENCODER_SHAPES = ((2, 3), (1, 1), (3, 17))  # R, S
DECODER_SHAPES = ((2, 3, 5, 4), (1, 1, 1, 1), (3, 2, 17, 32))  # R, W, S, C
TOLERANCE = 1e-4  # on logits and K/V


def trace_encoder(model: BartForConditionalGeneration, path: Path) -> None:
    """Write the encoder's TorchScript file.

    Raises:
        BuildError: The traced module differs from the model on another shape.
    """
    examples = []
    for shape in ENCODER_SHAPES:
        ids = torch.randint(model.config.vocab_size, shape, dtype=torch.int32)
        examples.append((ids, torch.ones_like(ids)))
    module = EncoderWithCrossKv(model)
    module.add_module("encoder", _bare(module.encoder))
    write(module, examples, path)


def trace_decoder(model: BartForConditionalGeneration, path: Path, num_candidates: int) -> None:
    """Write the decode step's TorchScript file.

    Args:
        model: The checkpoint, float32, in eval mode.
        path: The file to write.
        num_candidates: K, the number of sorted candidates returned for each row.

    Raises:
        BuildError: The traced module differs from the model on another shape.
    """
    examples = [_step_example(model, *shape) for shape in DECODER_SHAPES]
    module = DecodeStep(model, num_candidates)
    module.add_module("decoder", _bare(module.decoder))
    write(module, examples, path)


def read_back(path: Path) -> Artefact:
    """Read the precision of a TorchScript file's products from the weights that they multiply.

    Raises:
        BuildError: The module has no product with weights.
        EngineError: The file cannot be loaded.
    """
    graph = load_module(path).inlined_graph  # its nodes do not keep it alive
    elements: Counter[str] = Counter()
    for node in graph.findAllNodes("aten::linear"):  # type: ignore[attr-defined]
        _states, weight, *_bias = node.inputs()
        tensor = weight.toIValue()
        if isinstance(tensor, torch.Tensor):
            elements[PRECISIONS.get(tensor.dtype, "other")] += tensor.numel()
    return Artefact(products=shares_of(elements, path), opset=None)


def _step_example(
    model: BartForConditionalGeneration, requests: int, beams: int, source: int, entries: int
) -> tuple[Tensor, ...]:
    """Random inputs of a decode step, in its order."""
    layers = model.model.decoder.layers
    attention = layers[0].self_attn
    heads, head_dim = attention.num_heads, attention.head_dim
    past: list[Tensor] = []
    for _ in layers:
        past += torch.randn(2, requests, heads, entries, head_dim).unbind()
        past += torch.randn(2, requests, heads, source, head_dim).unbind()
    return (
        torch.randint(model.config.vocab_size, (requests, beams), dtype=torch.int32),
        torch.arange(requests, dtype=torch.int32)[:, None],
        torch.ones(requests, source, dtype=torch.int32),
        torch.randint(2, (requests, beams, entries), dtype=torch.int32),
        *past,
    )


def _bare(stack: nn.Module) -> nn.Module:
    """A plain holder of the same layers: the tracer reads every property of transformers' own."""
    bare = nn.Module()
    for name, child in stack.named_children():
        bare.add_module(name, child)
    return bare


def write(module: nn.Module, examples: Sequence[tuple[Tensor, ...]], path: Path) -> None:
    """Trace a module and write its TorchScript file.

    Args:
        module: Takes tensors, gives tensors.
        examples: Its inputs in several shapes; the first is traced, all are compared.
        path: The file to write.

    Raises:
        BuildError: The traced module differs from the original on another shape.
    """
    first, *others = examples
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns that it is to be replaced, and of shapes taken as constants; the check
        # on other shapes is the check of the latter.
        warnings.simplefilter("ignore")
        try:
            traced = torch.jit.trace(
                module.eval(), first, check_inputs=others, check_tolerance=TOLERANCE
            )
        except torch.jit.TracingCheckError as error:  # type: ignore[attr-defined]
            raise BuildError(f"{path.name} cannot be traced: {error}") from error
        # Freezing drops the weights that the step does not use, and makes constants of the others.
        torch.jit.freeze(traced).save(path)
