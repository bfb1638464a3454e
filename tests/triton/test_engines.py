"""The engines as models of their own: contract names, and the arrays of ONNX Runtime."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpcclient

from kobart_runtime.model_config import ModelConfig
from server.supervisor import TritonServer
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.triton

Tensors = dict[str, tuple[str, list[int]]]
ENCODER, DECODER = "kobart_encoder", "kobart_decoder"


@pytest.fixture(scope="module")
def config(mini_build: Path) -> ModelConfig:
    return ModelConfig.from_manifest(mini_build / "manifest.json")


@pytest.fixture(scope="module")
def grpc_client(triton: TritonServer) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(triton.grpc_url) as client:
        yield client


def both(kind: str, config: ModelConfig, prefix: str, side: str) -> Tensors:
    """Key and value of every layer."""
    shape = [-1, config.shape.num_heads, -1, config.shape.head_dim]
    return {
        f"{prefix}.{layer}.{side}.{name}": (kind, shape)
        for layer in range(config.shape.num_decoder_layers)
        for name in ("key", "value")
    }


def contract(model: str, config: ModelConfig) -> tuple[Tensors, Tensors]:
    """Inputs and outputs; -1 for R, W, S and C."""
    if model == ENCODER:
        ids = ("INT32", [-1, -1])
        return {"input_ids": ids, "attention_mask": ids}, both("FP32", config, "present", "encoder")
    inputs: Tensors = {
        "decoder_input_ids": ("INT32", [-1, -1]),
        "position_ids": ("INT32", [-1, 1]),
        "encoder_attention_mask": ("INT32", [-1, -1]),
        "decoder_attention_mask": ("INT32", [-1, -1, -1]),
        **both("FP32", config, "past_key_values", "decoder"),
        **both("FP32", config, "past_key_values", "encoder"),
    }
    outputs: Tensors = {
        "logits": ("FP32", [-1, -1, config.shape.vocab_size]),
        "candidate_logprobs": ("FP32", [-1, -1, config.shape.num_candidates]),
        "candidate_ids": ("INT32", [-1, -1, config.shape.num_candidates]),
        **both("FP32", config, "present", "decoder"),
    }
    return inputs, outputs


def tensors(listed: list[dict[str, Any]]) -> Tensors:
    return {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in listed}


@pytest.mark.parametrize("model", [ENCODER, DECODER])
def test_metadata_is_the_contract(triton: TritonServer, config: ModelConfig, model: str) -> None:
    with urllib.request.urlopen(
        f"{triton.http_url}/v2/models/{model}", timeout=PATIENCE_S
    ) as response:
        metadata = json.load(response)
    inputs, outputs = contract(model, config)
    assert tensors(metadata["inputs"]) == inputs
    assert tensors(metadata["outputs"]) == outputs


def feeds_of(model: str, config: ModelConfig, *, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of R=3, W=2, S=7, C=5."""
    rng = np.random.default_rng(seed)
    sizes = {"ids": [3, 7], "cross": [3, config.shape.num_heads, 7, config.shape.head_dim]}
    sizes["self"] = [3, config.shape.num_heads, 5, config.shape.head_dim]
    source_mask = (np.arange(7) < np.array([[7], [4], [1]])).astype(np.int32)
    if model == ENCODER:
        input_ids = rng.integers(7, config.shape.vocab_size, sizes["ids"], dtype=np.int32)
        return {"input_ids": input_ids, "attention_mask": source_mask}
    inputs, _ = contract(model, config)
    return {
        "decoder_input_ids": rng.integers(7, config.shape.vocab_size, [3, 2], dtype=np.int32),
        "position_ids": np.array([[0], [2], [5]], np.int32),
        "encoder_attention_mask": source_mask,
        "decoder_attention_mask": rng.integers(0, 2, [3, 2, 5], dtype=np.int32),
        **{
            name: rng.standard_normal(
                sizes["self" if ".decoder." in name else "cross"], dtype=np.float32
            )
            for name in inputs
            if name.startswith("past_key_values")
        },
    }


def infer(
    client: grpcclient.InferenceServerClient, model: str, feeds: dict[str, np.ndarray]
) -> grpcclient.InferResult:
    inputs = []
    for name, array in feeds.items():
        kind = "INT32" if array.dtype == np.int32 else "FP32"
        inputs.append(grpcclient.InferInput(name, array.shape, kind))
        inputs[-1].set_data_from_numpy(array)
    return client.infer(model, inputs)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("model", "file"), [(ENCODER, "encoder.onnx"), (DECODER, "decoder.onnx")])
def test_gives_what_onnxruntime_gives(
    grpc_client: grpcclient.InferenceServerClient,
    mini_build: Path,
    config: ModelConfig,
    model: str,
    file: str,
    seed: int,
) -> None:
    session = onnxruntime.InferenceSession(str(mini_build / model / "1" / file))
    feeds = feeds_of(model, config, seed=seed)
    names = [output.name for output in session.get_outputs()]
    assert set(names) == set(contract(model, config)[1])
    result = infer(grpc_client, model, feeds)
    for name, expected in zip(names, session.run(names, feeds), strict=True):
        np.testing.assert_array_equal(result.as_numpy(name), expected, err_msg=name)


def test_a_step_gives_the_best_of_its_logits(
    grpc_client: grpcclient.InferenceServerClient, config: ModelConfig
) -> None:
    result = infer(grpc_client, DECODER, feeds_of(DECODER, config, seed=3))
    logits = result.as_numpy("logits").astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    best = np.sort(logprobs, axis=-1)[..., ::-1][..., : config.shape.num_candidates]
    np.testing.assert_allclose(result.as_numpy("candidate_logprobs"), best, atol=1e-5)
    chosen = np.take_along_axis(logprobs, result.as_numpy("candidate_ids"), axis=-1)
    np.testing.assert_allclose(chosen, best, atol=1e-5)


def test_inputs_that_do_not_fit_are_an_error_and_no_more(
    grpc_client: grpcclient.InferenceServerClient, config: ModelConfig
) -> None:
    feeds = feeds_of(ENCODER, config, seed=4)
    bad = {**feeds, "input_ids": np.full_like(feeds["input_ids"], config.shape.vocab_size)}
    with pytest.raises(grpcclient.InferenceServerException, match="INTERNAL: ONNX Runtime failed"):
        infer(grpc_client, ENCODER, bad)
    assert infer(grpc_client, ENCODER, feeds).as_numpy("present.0.encoder.key") is not None
