"""A build that is whole is ready soon and reloads under load; one that is not is refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from client import KobartClient, RetryPolicy, Summary
from tests.patience import PATIENCE_S
from tests.server.served import Served
from tests.triton.conftest import running

pytestmark = pytest.mark.triton

NUM_RELOADS = 3


@pytest.fixture
def copy(mini_build: Path, tmp_path: Path) -> Path:
    """A build to spoil."""
    return Path(shutil.copytree(mini_build, tmp_path / "copy"))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # copies of a build may share their files by hard links
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "tokenizer.json"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [(flip_a_byte, "is corrupt: sha256"), (cut_in_half, "is corrupt"), (Path.unlink, "is missing")],
)
def test_a_spoiled_artefact_is_refused(
    copy: Path,
    serve: Callable[..., Served],
    name: str,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    path = copy / "kobart" / "1" / name
    spoil(path)
    refusal = refusal_of(serve(copy), 1)
    assert f"{path} {message}" in refusal
    assert "build again" in refusal


@pytest.mark.parametrize("spoil", [cut_in_half, Path.unlink])
@pytest.mark.parametrize(("name", "status"), [("manifest.json", 2), ("kobart/1/manifest.json", 1)])
def test_a_spoiled_manifest_is_refused(
    copy: Path, serve: Callable[..., Served], name: str, status: int, spoil: Callable[[Path], None]
) -> None:
    spoil(copy / name)
    refusal = refusal_of(serve(copy), status)
    assert "manifest.json" in refusal
    assert str((copy / name).parent) in refusal
    assert "build again" in refusal or "kobart-build" in refusal


def refusal_of(served: Served, status: int) -> str:
    """The one line with which kobart-serve ends."""
    assert served.wait_exit() == status
    assert served.stdout == ""
    assert served.stderr.startswith("kobart-serve: ")
    assert served.stderr.count("\n") == 1
    return served.stderr


def test_reloads_under_load(mini_build: Path, tmp_path: Path, dialogues: list[str]) -> None:
    """On a server of its own: a stream cancelled at its very end holds its model for ever."""
    patient = RetryPolicy(max_attempts=10_000, initial_backoff_s=0.1, max_backoff_s=0.2)
    texts = dialogues[:4] * 15
    done: list[Summary] = []
    with (
        running(mini_build, tmp_path / "log") as triton,
        KobartClient(triton.grpc_url, retry=patient, timeout_s=PATIENCE_S) as client,
    ):
        expected = client.summarize_many(texts[:4], max_new_tokens=24) * 15
        caller = threading.Thread(
            target=lambda: done.extend(
                client.summarize_many(texts, concurrency=4, max_new_tokens=24)
            )
        )
        caller.start()
        for _ in range(NUM_RELOADS):
            triton.api.unload("kobart")
            triton.api.load("kobart", timeout_s=PATIENCE_S)
        caller.join()
    assert done == expected
