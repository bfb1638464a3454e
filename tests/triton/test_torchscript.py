"""A TorchScript build behind the real Triton: the answers of `generate()` and of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from builders.config import BuildConfig
from builders.pipeline import build
from client import KobartClient
from kobart_runtime.model_config import ModelConfig
from server.supervisor import TritonServer
from tests.conftest import MINI_CHECKPOINT
from tests.patience import PATIENCE_S
from tests.triton.conftest import NO_RETRY, running
from tests.triton.oracle import Oracle
from tests.triton.test_engines import DECODER, ENCODER, feeds_of, infer

pytestmark = pytest.mark.triton

SETTINGS: list[dict[str, float]] = [
    {},
    {"num_beams": 1},
    {"num_beams": 2, "max_new_tokens": 7},
    {"num_beams": 1, "no_repeat_ngram_size": 0, "repetition_penalty": 1.5},
    {"num_beams": 6, "length_penalty": 2.0, "early_stopping": False},
]


@pytest.fixture(scope="module")
def torchscript_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("build") / "torchscript"
    config = BuildConfig(checkpoint=str(MINI_CHECKPOINT), runtime="torchscript", output=str(output))
    return build(config)


@pytest.fixture(scope="module")
def server(
    torchscript_build: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    log = tmp_path_factory.mktemp("torchscript") / "log"
    with running(torchscript_build, log, "all") as server:
        yield server


def test_mixed_requests_equal_transformers(
    server: TritonServer, oracle: Oracle, dialogues: list[str]
) -> None:
    """All at once, so that greedy and beam requests of several lengths are decoded together."""
    cases = [(text, settings) for text in dialogues[:2] for settings in SETTINGS]
    with (
        KobartClient(server.grpc_url, timeout_s=PATIENCE_S, retry=NO_RETRY) as client,
        ThreadPoolExecutor(len(cases)) as pool,
    ):
        jobs = [pool.submit(client.summarize, text, **settings) for text, settings in cases]
        answers = [job.result() for job in jobs]
    for (text, settings), answer in zip(cases, answers, strict=True):
        expected = oracle.generate(oracle.source_ids(text), **settings)
        assert answer.output_ids == expected, settings
        assert answer.text.strip()


@pytest.mark.parametrize("model", [ENCODER, DECODER])
def test_engines_give_what_onnx_runtime_gives(
    server: TritonServer, triton: TritonServer, mini_build: Path, model: str
) -> None:
    config = ModelConfig.from_manifest(mini_build / "manifest.json")
    feeds = feeds_of(model, config, seed=1)
    results = []
    for url in (server.grpc_url, triton.grpc_url):
        with grpcclient.InferenceServerClient(url) as client:
            results.append(infer(client, model, feeds))
    for output in results[1].get_response().outputs:
        ours, theirs = (result.as_numpy(output.name) for result in results)
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=output.name)


def test_inputs_that_do_not_fit_are_an_error_and_no_more(
    server: TritonServer, torchscript_build: Path
) -> None:
    config = ModelConfig.from_manifest(torchscript_build / "manifest.json")
    feeds = feeds_of(ENCODER, config, seed=4)
    bad = {**feeds, "input_ids": np.full_like(feeds["input_ids"], config.shape.vocab_size)}
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        with pytest.raises(
            grpcclient.InferenceServerException, match=r"INTERNAL: TorchScript failed: .*range"
        ):
            infer(client, ENCODER, bad)
        assert infer(client, ENCODER, feeds).as_numpy("present.0.encoder.key") is not None
