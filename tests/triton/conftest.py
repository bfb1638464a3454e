"""One real tritonserver with all models of a build of kobart-mini, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from builders.config import BuildConfig
from builders.pipeline import build
from client import KobartClient, RetryPolicy
from server.supervisor import TritonServer, free_ports
from tests.conftest import MINI_CHECKPOINT
from tests.parity.checkpoints import SeededCheckpoint
from tests.patience import PATIENCE_S
from tests.triton.oracle import Oracle

NO_RETRY = RetryPolicy(max_attempts=1)


@contextmanager
def running(folders: Path | Sequence[Path], log: Path, *models: str) -> Iterator[TritonServer]:
    """A server of one build or more on free ports, with its log in a file."""
    folders = [folders] if isinstance(folders, Path) else folders
    http_port, grpc_port, metrics_port = free_ports(3)
    with (
        log.open("w", encoding="utf-8") as sink,
        TritonServer(
            *folders,
            models=models,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            exit_timeout_s=10.0,
            log=sink,
        ) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def triton(mini_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """All models of the mini build."""
    with running(mini_build, tmp_path_factory.mktemp("triton") / "log", "all") as server:
        yield server


@pytest.fixture(scope="session")
def client(triton: TritonServer) -> Iterator[KobartClient]:
    """A client of the mini build's server; errors come at once."""
    with KobartClient(triton.grpc_url, timeout_s=PATIENCE_S, retry=NO_RETRY) as client:
        yield client


@pytest.fixture(scope="session")
def narrow_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another name, one slot, two places in the queue, and summaries that take long.

    kobart-mini says 1000 tokens in two seconds; a decoder of 40 layers leaves time to cancel.
    """
    folder = tmp_path_factory.mktemp("narrow-build")
    checkpoint = SeededCheckpoint(
        seed=1,
        vocab_size=4000,
        encoder_layers=1,
        decoder_layers=40,
        decoder_start=1,
        forced_eos=1,
        init_std=0.1,
    )
    config = BuildConfig(
        checkpoint=str(checkpoint.save(folder / "deep", MINI_CHECKPOINT / "tokenizer.json")),
        runtime="onnxruntime",
        output=str(folder / "narrow"),
        model_name="narrow",
        max_batch_size=1,
        max_queue_size=2,
        max_target_length=1000,
        max_request_seconds=PATIENCE_S,
    )
    return build(config)


@pytest.fixture(scope="session")
def narrow(narrow_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The narrow build's front model, beside the other server."""
    with running(narrow_build, tmp_path_factory.mktemp("narrow") / "log") as server:
        yield server
        server.kill()  # a stream that was cancelled at its very end would hold it up


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """kobart-mini in PyTorch."""
    return Oracle(MINI_CHECKPOINT)
