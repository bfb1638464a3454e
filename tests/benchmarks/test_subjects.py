from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.subjects import BuildFacts


def test_only_the_engines_that_are_opened_count(mini_build: Path, tmp_path: Path) -> None:
    build = Path(shutil.copytree(mini_build, tmp_path / "build"))
    front = build / "kobart" / "1"
    engines = [front / "encoder.onnx", front / "decoder.onnx"]
    (front / "encoder.qdq.onnx").write_bytes(bytes(1000))
    facts = BuildFacts.read(build)
    assert facts.size_mb == sum(file.stat().st_size for file in engines) / 1e6
    assert facts.is_trained
    assert facts.num_parameters > 1e6
