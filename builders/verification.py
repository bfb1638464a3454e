"""Compare the built engines with the PyTorch checkpoint they came from.

The engines run as the runtime runs them: requests of different lengths padded together and
joining at different steps, beams that branch from one another and share one cache. The oracle is
the model's plain forward pass over each beam's whole prefix, without any cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from builders.checkpoint import Checkpoint
from kobart_runtime.host_kv_cache import HostKvCache
from kobart_runtime.model_config import ModelShape
from kobart_runtime.model_runner import StepInputs
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner
from kobart_runtime.tokenizer import Tokenizer

LOGITS_GATE = 1e-4  # max abs error of fp32 logits
NUM_BEAMS = 3
NUM_STEPS = 6
RANDOM_LENGTHS = (1, 2, 17, 60)
SEED = 20251
DOCUMENTS = (
    "네",
    "어제 회의에서 다음 달 출시 일정을 확정했습니다. 시험은 이번 주 금요일까지 마치기로 했습니다.",
    "기상청은 내일 중부 지방에 최대 80mm의 비가 내리고, 남부 지방은 오후부터 차차 맑아지겠다고 "
    "예보했다. 낮 기온은 21도에서 27도로 오늘보다 조금 낮겠다.",
)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How far the engines are from the checkpoint."""

    max_abs_error_logits: float
    max_abs_error_candidates: float  # of their log-probabilities
    gate: float
    passed: bool
    enforced: bool  # False: random weights, or a forced build
    samples: int  # rows of logits that were compared


@dataclass
class _Request:
    """One request of the comparison: a source, and beams that grow a token a step."""

    input_ids: list[int]
    encoder_hidden_states: torch.Tensor  # float32[1, S, M], by the checkpoint
    first_step: int  # requests join at different steps, so their positions differ
    prefixes: list[list[int]]  # [W][step], decoder start included
    ancestors: list[list[int]]  # [W], cache entries of each beam


def verify(
    checkpoint: Checkpoint, folder: Path, shape: ModelShape, tokenizer: Tokenizer, *, enforced: bool
) -> Verification:
    """Run engines and checkpoint side by side on real and random ids.

    Args:
        checkpoint: The oracle.
        folder: Holds the two engine files.
        shape: Their dimensions.
        tokenizer: The build's own; it makes the real ids.
        enforced: Stored in the result; the caller decides what a failed gate means.

    Raises:
        EngineError: An engine cannot be loaded or run.
    """
    rng = np.random.default_rng(SEED)
    requests = _requests(checkpoint, tokenizer, rng)
    runner = OnnxRuntimeRunner(folder, shape)
    cache = _filled_cache(runner, requests)
    logit_error = candidate_error = 0.0
    samples = 0
    for step in range(NUM_STEPS):
        output = runner.decode_step(cache, _step_inputs(requests, step), want_logits=True)
        assert output.logits is not None
        for index, request in enumerate(requests):
            if step < request.first_step:
                continue
            expected = _expected_logits(checkpoint, request)
            logit_error = _worst(logit_error, output.logits[index] - expected)
            logprobs = torch.log_softmax(torch.from_numpy(expected), dim=-1).numpy()
            chosen = np.take_along_axis(logprobs, output.candidate_ids[index].astype(int), axis=-1)
            candidate_error = _worst(candidate_error, output.candidate_logprobs[index] - chosen)
            samples += len(expected)
            _branch(request, step, shape.vocab_size, rng)
    return Verification(
        max_abs_error_logits=logit_error,
        max_abs_error_candidates=candidate_error,
        gate=LOGITS_GATE,
        passed=logit_error <= LOGITS_GATE and candidate_error <= LOGITS_GATE,
        enforced=enforced,
        samples=samples,
    )


def _requests(
    checkpoint: Checkpoint, tokenizer: Tokenizer, rng: np.random.Generator
) -> list[_Request]:
    sources = [tokenizer.encode(document).input_ids.tolist() for document in DOCUMENTS]
    for length in RANDOM_LENGTHS:
        length = min(length, checkpoint.max_positions)
        sources.append(rng.integers(checkpoint.vocab_size, size=length).tolist())
    start = checkpoint.ids.decoder_start
    return [
        _Request(
            input_ids=source,
            encoder_hidden_states=_encode(checkpoint, source),
            first_step=index % 3,
            prefixes=[[start]] * NUM_BEAMS,
            ancestors=[[]] * NUM_BEAMS,
        )
        for index, source in enumerate(sources)
    ]


def _encode(checkpoint: Checkpoint, input_ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        encoded = checkpoint.model.get_encoder()(input_ids=torch.tensor([input_ids]))
    return encoded.last_hidden_state


def _filled_cache(runner: OnnxRuntimeRunner, requests: Sequence[_Request]) -> HostKvCache:
    lengths = [len(request.input_ids) for request in requests]
    input_ids = np.zeros((len(requests), max(lengths)), np.int32)
    attention_mask = np.zeros_like(input_ids)
    for row, request in enumerate(requests):
        input_ids[row, : lengths[row]] = request.input_ids
        attention_mask[row, : lengths[row]] = 1
    encoded = runner.encode(input_ids, attention_mask)
    cache = runner.new_cache(len(requests), NUM_STEPS * NUM_BEAMS, max(lengths))
    for row, length in enumerate(lengths):
        cache.put(row, encoded, row, length)
    return cache


def _step_inputs(requests: Sequence[_Request], step: int) -> StepInputs:
    """A request that has not joined yet computes its first step, and writes what no beam sees."""
    visible = np.zeros((len(requests), NUM_BEAMS, NUM_STEPS * NUM_BEAMS), np.int32)
    for row, request in enumerate(requests):
        for beam, entries in enumerate(request.ancestors):
            visible[row, beam, entries] = 1
    last = [[prefix[-1] for prefix in request.prefixes] for request in requests]
    positions = [[len(request.prefixes[0]) - 1] for request in requests]
    new_entries = np.arange(NUM_BEAMS) + step * NUM_BEAMS
    return StepInputs(
        decoder_input_ids=np.array(last, np.int32),
        position_ids=np.array(positions, np.int32),
        decoder_attention_mask=visible,
        new_entries=np.tile(new_entries, (len(requests), 1)),
    )


def _expected_logits(checkpoint: Checkpoint, request: _Request) -> np.ndarray:
    """The checkpoint's logits after each beam's prefix, float32[W, V]."""
    hidden = request.encoder_hidden_states.expand(NUM_BEAMS, -1, -1)
    with torch.inference_mode():
        output = checkpoint.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=torch.ones(hidden.shape[:2], dtype=torch.long),
            decoder_input_ids=torch.tensor(request.prefixes),
            use_cache=False,
        )
    return output.logits[:, -1].float().numpy()


def _branch(request: _Request, step: int, vocab_size: int, rng: np.random.Generator) -> None:
    """Give each beam a random parent of the last step, and a random next token."""
    parents = rng.integers(NUM_BEAMS, size=NUM_BEAMS)
    tokens = rng.integers(vocab_size, size=NUM_BEAMS)
    written = [step * NUM_BEAMS + int(parent) for parent in parents]
    request.ancestors = [
        [*request.ancestors[parent], entry] for parent, entry in zip(parents, written, strict=True)
    ]
    request.prefixes = [
        [*request.prefixes[parent], int(token)]
        for parent, token in zip(parents, tokens, strict=True)
    ]


def _worst(error: float, difference: np.ndarray) -> float:
    """The larger error; NaN wins, so that it cannot pass the gate."""
    return float(np.maximum(error, np.abs(difference).max()))
