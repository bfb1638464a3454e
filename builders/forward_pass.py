"""What is timed of a model: the encoder on all sources, and one decoder token of each.

A pass is a function that returns when its work is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import BartForConditionalGeneration

from kobart_runtime.model_runner import ModelRunner, StepInputs

Pass = Callable[[], None]


def engine_pass(runner: ModelRunner, ids: np.ndarray) -> Pass:
    """Engines, run as the generation loop runs them.

    Args:
        runner: Open engines.
        ids: int32[R, S] without padding.
    """
    num_sources, source_len = ids.shape
    cache: Any = runner.new_cache(num_sources, 1, source_len)
    one = np.ones((num_sources, 1), np.int32)
    first = StepInputs(one, one - 1, np.zeros_like(one)[:, None], np.zeros_like(one, np.int64))

    def run() -> None:
        encoded = runner.encode(ids, np.ones_like(ids))
        for row in range(num_sources):
            cache.put(row, encoded, row, source_len)
        runner.decode_step(cache, first, want_logits=False)

    return run


def pytorch_pass(model: BartForConditionalGeneration, ids: np.ndarray) -> Pass:
    """PyTorch as `transformers` runs it, on the model's own device."""
    sources = torch.from_numpy(ids).long().to(model.device)
    first = torch.ones(len(ids), 1, dtype=torch.long, device=model.device)

    def run() -> None:
        with torch.inference_mode():
            model(input_ids=sources, decoder_input_ids=first)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    return run
