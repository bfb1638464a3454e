from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.echo_build import make_build
from tests.server.served import Served


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build with one model, `echo`."""
    return make_build(tmp_path / "build")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts kobart-serve on a build; whatever still runs at the end is killed."""
    started: list[Served] = []

    def start(*arguments: str | Path) -> Served:
        served = Served(arguments, tmp_path / f"serve-{len(started)}")
        started.append(served)
        return served

    yield start
    for served in started:
        served.kill()
