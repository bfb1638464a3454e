"""A small server to disturb: few slots, and summaries long enough to be interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.supervisor import TritonServer
from tests.triton.conftest import running
from tests.triton.limited import limited_copy


@pytest.fixture(scope="session")
def disturbed_build(mini_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kobart-mini with eight slots and up to 1,000 tokens a summary."""
    folder = tmp_path_factory.mktemp("disturbed") / "build"
    return limited_copy(
        mini_build, folder, max_batch_size=8, max_queue_size=64, max_target_length=1000
    )


@pytest.fixture(scope="module")
def disturbed(
    disturbed_build: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    """A server of the build."""
    with running(disturbed_build, tmp_path_factory.mktemp("disturbed") / "log") as server:
        yield server
        server.kill()  # a stream that was cancelled at its very end would hold it up
