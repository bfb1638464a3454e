from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.echo_build import make_build


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build with one model, `echo`."""
    return make_build(tmp_path / "build")
