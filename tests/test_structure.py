"""docs/structure.md names every module, so that the map cannot fall behind the land."""

from __future__ import annotations

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    "package",
    [
        "kobart_runtime",
        "kobart_documents",
        "builders",
        "server",
        "client",
        "client/perf",
        "client/report",
        "benchmarks",
    ],
)
def test_structure_names_every_module(package: str) -> None:
    text = (REPOSITORY / "docs" / "structure.md").read_text(encoding="utf-8")
    modules = [path.name for path in (REPOSITORY / package).glob("*.py")]
    missing = [name for name in modules if name != "__init__.py" and f"| `{name}` |" not in text]
    assert not missing
