"""Every build that makes sense: by the real command, behind the real Triton, exact and gated."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builders.config import BuildConfig
from builders.generating import generate
from builders.pipeline import load_source
from builders.precision import AGREEMENT_GATES
from client import KobartClient
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.runners import open_runner
from tests.conftest import MINI_CHECKPOINT, REPOSITORY
from tests.patience import PATIENCE_S
from tests.triton.conftest import NO_RETRY, running
from tests.triton.oracle import Oracle

pytestmark = pytest.mark.triton

PRUNE = {
    "whole": None,
    "structured": "structured=0.2",
    "global": "global=0.4",
    "layers": "layers=encoder:3,decoder:2",
}
ENGINES = [  # precision, runtime, encoder_engine, cross_kv
    ("fp32", "onnxruntime", "onnxruntime", "float"),
    ("fp16", "onnxruntime", "onnxruntime", "float"),
    ("int8", "onnxruntime", "onnxruntime", "float"),
    ("int8", "onnxruntime", "onnxruntime", "int8"),
    ("int8", "onnxruntime", "openvino", "int8"),
    ("fp32", "torchscript", "torchscript", "float"),
]
# In every test run; the others are slow.
REPRESENTATIVE = {
    ("int8", "onnxruntime", "openvino", "int8", "whole"),
    ("fp32", "torchscript", "torchscript", "float", "structured"),
}
NUM_DOCUMENTS = 24  # that fp16 and int8 are fitted to
SUMMARIZED = slice(0, 3)  # of the dev dialogues


@dataclass(frozen=True)
class Combination:
    """One cell of the matrix."""

    precision: str
    runtime: str
    encoder_engine: str
    cross_kv: str
    pruning: str  # a key of PRUNE

    @property
    def prune(self) -> tuple[str, ...]:
        step = PRUNE[self.pruning]
        return () if step is None else (step,)


def cells() -> list[Any]:
    found = [(*engines, pruning) for engines in ENGINES for pruning in PRUNE]
    return [
        pytest.param(
            Combination(*cell),
            id="-".join(dict.fromkeys(cell)),
            marks=() if cell in REPRESENTATIVE else (pytest.mark.slow,),
        )
        for cell in found
    ]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "builders/build_all.py", "--checkpoint", str(MINI_CHECKPOINT), *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def documents_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = (MINI_CHECKPOINT / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("documents") / "some.jsonl"
    path.write_text("\n".join(lines[:NUM_DOCUMENTS]), encoding="utf-8")
    return path


def build(cell: Combination, documents_file: Path, output: Path) -> Path:
    arguments = ["--precision", cell.precision, "--runtime", cell.runtime, "--output", str(output)]
    arguments += [word for step in cell.prune for word in ("--prune", step)]
    if cell.precision != "fp32":
        arguments += ["--calibration-data", str(documents_file)]
    if cell.precision == "int8":
        arguments += ["--encoder-engine", cell.encoder_engine, "--cross-kv", cell.cross_kv]
    result = command(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return output


@pytest.mark.parametrize("cell", cells())
def test_a_build_serves_what_it_is_asked_for(
    cell: Combination, documents_file: Path, dialogues: list[str], tmp_path: Path
) -> None:
    folder = build(cell, documents_file, tmp_path / "build")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    check_manifest(cell, manifest)
    if cell.encoder_engine == "openvino":
        artefacts = manifest["artefacts"]
        assert artefacts["encoder.onnx"] == artefacts["encoder.qdq.onnx"]
        assert manifest["versions"]["openvino"]

    config = ModelConfig.from_manifest(folder / "manifest.json")
    runner = open_runner(folder / "kobart/1", config.engines)
    # Layers are chosen by the loss on the checkpoint's own documents: the same once more.
    source, _ = load_source(BuildConfig(checkpoint=str(MINI_CHECKPOINT), prune=cell.prune))
    oracle = Oracle(MINI_CHECKPOINT, source.checkpoint.model)
    with (
        running(folder, tmp_path / "log") as server,
        KobartClient(server.grpc_url, timeout_s=PATIENCE_S, retry=NO_RETRY) as client,
    ):
        for text in dialogues[SUMMARIZED]:
            answer = client.summarize(text).output_ids
            source_ids = oracle.source_ids(text)
            # One at a time, as the server had them: dynamic int8 scales by what a batch brings.
            [ids] = generate(
                runner,
                source.checkpoint.model,
                [source_ids],
                config.defaults,
                config.limits,
                config.shape,
            )
            assert answer == tuple(ids)
            if cell.precision == "fp32":
                assert answer == oracle.generate(source_ids)


def check_manifest(cell: Combination, manifest: dict[str, Any]) -> None:
    built, verification = manifest["built"], manifest["verification"]
    assert (built["precision"], built["runtime"]) == (cell.precision, cell.runtime)
    assert (built["encoder_engine"], built["cross_kv"]) == (cell.encoder_engine, cell.cross_kv)
    in_bytes = {"encoder.cross-int8.onnx", "decoder.cross-int8.onnx"} <= manifest[
        "artefacts"
    ].keys()
    assert in_bytes is (cell.cross_kv == "int8")
    assert tuple(manifest["pruning"]["requested"] if cell.prune else ()) == cell.prune
    assert verification["enforced"]
    assert verification["passed"]
    if cell.precision == "fp32":
        assert verification["max_abs_error_logits"] <= 1e-4
    else:
        assert verification["agreement"] >= AGREEMENT_GATES[cell.precision]
        assert verification["agreement_tokens"] > 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_torchscript_is_float32_alone(precision: str, tmp_path: Path) -> None:
    output = tmp_path / "build"
    result = command("--runtime", "torchscript", "--precision", precision, "--output", str(output))
    assert result.returncode == 1
    assert f"runtime torchscript is for precision fp32, got {precision}" in result.stderr
    assert "--runtime onnxruntime" in result.stderr
    assert not output.exists()
