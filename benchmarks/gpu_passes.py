"""A forward pass of each system: PyTorch eager and traced, and a build's engines."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration

from builders.export import DecodeStep, EncoderWithCrossKv
from builders.forward_pass import Pass, engine_pass, pytorch_pass
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig
from kobart_runtime.runners import open_runner


def eager_pass(model: BartForConditionalGeneration, ids: np.ndarray, device: str) -> Pass:
    """PyTorch eager.

    Args:
        model: Float32; stays where it is.
        ids: int32[R, S] without padding.
        device: "cuda", or "cpu".
    """
    return pytorch_pass(copy.deepcopy(model).to(device), ids)  # type: ignore[arg-type]


class EncodeAndStep(nn.Module):
    """Both engines behind one another, with an empty cache."""

    def __init__(self, model: BartForConditionalGeneration, num_candidates: int) -> None:
        super().__init__()
        self.encode = EncoderWithCrossKv(model)
        self.step = DecodeStep(model, num_candidates)
        # The tracer reads every property of transformers' own classes.
        self.encode.add_module("encoder", _bare(self.encode.encoder))
        self.step.add_module("decoder", _bare(self.step.decoder))

    def forward(self, ids: Tensor, mask: Tensor, first: Tensor, past: Tensor) -> Any:
        """What a decode step gives, logits first.

        Args:
            ids: int32[R, S] source ids.
            mask: int32[R, S], all 1.
            first: int32[R, 1] decoder ids.
            past: float32[R, H, 1, D], the empty cache's only entry, which is hidden.
        """
        cross = self.encode(ids, mask)
        layers = [
            tensor
            for key, value in zip(cross[::2], cross[1::2], strict=True)
            for tensor in (past, past, key, value)
        ]
        position = torch.zeros_like(first)
        return self.step(first, position, mask, position[:, :, None], *layers)


def traced_pass(
    model: BartForConditionalGeneration, ids: np.ndarray, device: str, num_candidates: int
) -> Pass:
    """TorchScript: the engines' own modules, traced on the device and frozen."""
    moved: Any = copy.deepcopy(model).to(device)  # type: ignore[arg-type]
    attention = moved.model.decoder.layers[0].self_attn
    past_shape = (len(ids), attention.num_heads, 1, attention.head_dim)
    sources = torch.from_numpy(ids).to(device)
    first = torch.ones(len(ids), 1, dtype=torch.int32, device=device)
    inputs = (sources, torch.ones_like(sources), first, torch.zeros(past_shape, device=device))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it takes shapes as constants: these are the only ones
        module = EncodeAndStep(moved, num_candidates).eval()
        traced = torch.jit.freeze(torch.jit.trace(module, inputs, check_trace=False))

    def run() -> None:
        with torch.inference_mode():
            traced(*inputs)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def build_pass(build: Path, ids: np.ndarray) -> Pass:
    """A build's engines.

    Raises:
        EngineError: An engine cannot be opened.
    """
    config = ModelConfig.from_manifest(build / MANIFEST_NAME)
    runner = open_runner(build / config.name / "1", config.engines)
    return engine_pass(runner, ids)


def _bare(stack: nn.Module) -> nn.Module:
    bare = nn.Module()
    for name, child in stack.named_children():
        bare.add_module(name, child)
    return bare
