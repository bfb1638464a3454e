"""Compare the built engines with the PyTorch checkpoint they came from.

The engines run as the runtime runs them: requests of different lengths padded together and
joining at different steps, beams that branch from one another and share one cache. The oracle is
the model's plain forward pass over each request alone and each beam's whole prefix, uncached, in
float64. Float32 engines may be as far from it as rounding explains: PyTorch's own float32 forward
pass over the same rows says how far that is for this checkpoint.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from transformers import BartForConditionalGeneration

from builders.checkpoint import Checkpoint
from kobart_runtime.model_runner import KvCache, ModelRunner, StepInputs, StepOutput
from kobart_runtime.tokenizer import Tokenizer

LOGITS_GATE = 1e-4  # max abs error of fp32 logits, where they are of ordinary size
# Times PyTorch's own float32 error. Correct engines were up to 2.4 times as far from float64 as
# PyTorch, those of weights rounded to float16 at least 150 times: docs/precision.md.
MAX_ERROR_RATIO = 6.0
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

    max_abs_error_logits: float  # against PyTorch in float64, as the next
    max_abs_error_candidates: float  # of their log-probabilities
    pytorch_error_logits: float  # of PyTorch's own float32 logits, on the same rows
    gate: float  # on both errors of fp32, else on the agreement
    passed: bool
    enforced: bool  # False: random weights, or a forced build
    samples: int  # rows of logits that were compared
    agreement: float | None = None  # share of tokens chosen alike along summaries, 0..1
    agreement_tokens: int = 0  # tokens that were compared for it
    portable_agreement: float | None = None  # of the Q/DQ graphs beside the engines

    def gated_by_agreement(
        self, agreement: float, tokens: int, gate: float, portable_agreement: float | None
    ) -> Verification:
        """The same comparison, judged by the tokens that are chosen and not by the logits."""
        shares = [agreement] if portable_agreement is None else [agreement, portable_agreement]
        return replace(
            self,
            gate=gate,
            passed=min(shares) >= gate,
            agreement=agreement,
            agreement_tokens=tokens,
            portable_agreement=portable_agreement,
        )

    @property
    def summary(self) -> str:
        """What was measured, and the gate."""
        error = f"max error {self.max_abs_error_logits:.1e} on logits"
        if self.agreement is None:
            return (
                f"{error} (gate {self.gate:.1e}, PyTorch's own float32 error "
                f"{self.pytorch_error_logits:.1e}, {self.samples} rows)"
            )
        portable = self.portable_agreement
        also = "" if portable is None else f", {portable:.2%} by the portable graphs"
        return (
            f"{self.agreement:.2%} of {self.agreement_tokens} tokens chosen alike{also} "
            f"(gate {self.gate:.1%}), {error}"
        )


@dataclass
class _Request:
    """A source whose beams grow by a random token a step, and what the engines said of each."""

    input_ids: list[int]
    first_step: int  # requests join at different steps, so their positions differ
    prefixes: list[list[int]]  # [W][step], decoder start included
    ancestors: list[list[int]]  # [W], cache entries of each beam
    # One of each per compared row: the beam's prefix, and the engine's answer to it.
    compared: list[list[int]] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)  # float32[V]
    candidate_logprobs: list[np.ndarray] = field(default_factory=list)  # float32[K]
    candidate_ids: list[np.ndarray] = field(default_factory=list)  # int32[K]


def compare(
    checkpoint: Checkpoint, runner: ModelRunner, tokenizer: Tokenizer, *, enforced: bool
) -> Verification:
    """Run engines and checkpoint on the same real and random ids.

    Args:
        checkpoint: The oracle.
        runner: The engines, whatever runs them.
        tokenizer: The build's own; it makes the real ids.
        enforced: Stored in the result; the caller decides what a failed gate means.

    Raises:
        EngineError: An engine cannot be run.
    """
    rng = np.random.default_rng(SEED)
    requests = _requests(checkpoint, tokenizer, rng)
    _run_engines(runner, requests, rng)
    exact = copy.deepcopy(checkpoint.model).double()
    errors = np.array([_errors(exact, checkpoint.model, request) for request in requests])
    logit_error, candidate_error, pytorch_error = errors.max(axis=0)  # NaN wins, passes no gate
    gate = logits_gate(float(pytorch_error))
    return Verification(
        max_abs_error_logits=float(logit_error),
        max_abs_error_candidates=float(candidate_error),
        pytorch_error_logits=float(pytorch_error),
        gate=gate,
        passed=bool(max(logit_error, candidate_error) <= gate and not np.isnan(errors).any()),
        enforced=enforced,
        samples=sum(len(request.compared) for request in requests),
    )


def logits_gate(pytorch_error: float) -> float:
    """The largest error of float32 engines that rounding explains.

    Args:
        pytorch_error: Of PyTorch's float32 logits against its float64 ones. Where it is no finite
            number float32 is not enough for the checkpoint, and explains nothing.
    """
    if not math.isfinite(pytorch_error):
        return LOGITS_GATE
    return max(LOGITS_GATE, MAX_ERROR_RATIO * pytorch_error)


def _requests(
    checkpoint: Checkpoint, tokenizer: Tokenizer, rng: np.random.Generator
) -> list[_Request]:
    sources = [tokenizer.encode(document).input_ids.tolist() for document in DOCUMENTS]
    for length in RANDOM_LENGTHS:
        size = min(length, checkpoint.max_positions)
        sources.append(rng.integers(checkpoint.vocab_size, size=size).tolist())
    return [
        _Request(
            input_ids=source,
            first_step=index % 3,
            prefixes=[[checkpoint.ids.decoder_start]] * NUM_BEAMS,
            ancestors=[[]] * NUM_BEAMS,
        )
        for index, source in enumerate(sources)
    ]


def _run_engines(
    runner: ModelRunner, requests: Sequence[_Request], rng: np.random.Generator
) -> None:
    cache = _filled_cache(runner, requests)
    for step in range(NUM_STEPS):
        output = runner.decode_step(cache, _step_inputs(requests, step), want_logits=True)
        for row, request in enumerate(requests):
            if step >= request.first_step:
                _record(request, output, row)
                _branch(request, step, runner.vocab_size, rng)


def _filled_cache(runner: ModelRunner, requests: Sequence[_Request]) -> KvCache:
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


def _record(request: _Request, output: StepOutput, row: int) -> None:
    assert output.logits is not None
    request.compared += request.prefixes
    request.logits += list(output.logits[row])
    request.candidate_logprobs += list(output.candidate_logprobs[row])
    request.candidate_ids += list(output.candidate_ids[row])


def _branch(request: _Request, step: int, vocab_size: int, rng: np.random.Generator) -> None:
    """Give each beam a random parent of this step, and a random next token."""
    parents = rng.integers(NUM_BEAMS, size=NUM_BEAMS).tolist()
    tokens = rng.integers(vocab_size, size=NUM_BEAMS).tolist()
    request.ancestors = [
        [*request.ancestors[parent], step * NUM_BEAMS + parent] for parent in parents
    ]
    request.prefixes = [
        [*request.prefixes[parent], token] for parent, token in zip(parents, tokens, strict=True)
    ]


def _errors(
    exact: BartForConditionalGeneration, model: BartForConditionalGeneration, request: _Request
) -> tuple[float, float, float]:
    """Largest absolute errors against float64, of a request's compared rows.

    Returns:
        Of the engines' logits, of their candidates' log-probabilities, and of `model`'s logits.
    """
    expected = _logits(exact, request)
    logit_error = np.abs(np.stack(request.logits) - expected.numpy()).max()
    logprobs = torch.log_softmax(expected, dim=-1)
    returned = torch.from_numpy(np.stack(request.candidate_logprobs))
    ids = torch.from_numpy(np.stack(request.candidate_ids)).long()
    best = logprobs.topk(ids.shape[-1]).values
    candidate_errors = torch.stack([returned - best, returned - logprobs.gather(-1, ids)])
    pytorch_error = (_logits(model, request) - expected).abs().max()
    return float(logit_error), float(candidate_errors.abs().max()), float(pytorch_error)


def _logits(model: BartForConditionalGeneration, request: _Request) -> torch.Tensor:
    """A model's logits after each compared prefix, [rows, V] of its own type.

    Prefixes are padded on the right, where a causal decoder does not look.
    """
    lengths = torch.tensor([len(prefix) for prefix in request.compared])
    longest = int(lengths.max())
    padded = [prefix + [0] * (longest - len(prefix)) for prefix in request.compared]
    with torch.inference_mode():
        encoded = model.get_encoder()(input_ids=torch.tensor([request.input_ids]))
        hidden = encoded.last_hidden_state.expand(len(padded), -1, -1)
        logits = model(
            encoder_outputs=(hidden,), decoder_input_ids=torch.tensor(padded), use_cache=False
        ).logits
    return logits[torch.arange(len(padded)), lengths - 1]
