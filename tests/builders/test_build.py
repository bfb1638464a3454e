"""Whole builds of tiny checkpoints: layout, manifest, gate, and builds that are killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from builders.artefact import read_back
from builders.build_all import main
from builders.config import BuildConfig
from builders.export import export_decoder
from builders.paths import CHECKOUT, RUNTIME_PACKAGE
from builders.pipeline import build
from calibration.graph import weight_products
from kobart_runtime.errors import BuildError, ConfigError
from kobart_runtime.model_config import (
    ModelConfig,
    ModelShape,
    TokenIds,
    TokenizerConfig,
    sha256_of,
    verify_artefacts,
)
from kobart_runtime.settings import GenerationSettings, Limits
from tests.patience import PATIENCE_S

MakeCheckpoint = Callable[..., Path]
ARTEFACTS = ["encoder.onnx", "decoder.onnx", "tokenizer.json"]
RUNTIME_FILES = {f"kobart_runtime/{path.name}" for path in RUNTIME_PACKAGE.glob("*.py")}


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint({}, {"num_beams": 5, "max_length": 500})


@pytest.fixture(scope="module")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(
        BuildConfig(
            checkpoint=str(checkpoint),
            output=str(tmp_path_factory.mktemp("out") / "news"),
            model_name="news",
            max_beams=4,
            max_batch_size=7,
            add_eos=True,
            forced_eos_token_id=2,
        )
    )


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_layout(built: Path) -> None:
    shared = {"model.py", "manifest.json", *RUNTIME_FILES}
    assert sorted(path.name for path in built.iterdir()) == [
        "manifest.json", "news", "news_decoder", "news_encoder",
    ]  # fmt: skip
    assert files_below(built / "news" / "1") == shared | set(ARTEFACTS)
    assert files_below(built / "news_encoder" / "1") == shared | {"encoder.onnx"}
    assert files_below(built / "news_decoder" / "1") == shared | {"decoder.onnx"}


def test_equal_files_are_hard_links_and_none_leads_to_the_checkout(built: Path) -> None:
    for path in ("manifest.json", "news_decoder/1/manifest.json"):
        assert (built / path).samefile(built / "news/1/manifest.json")
    assert (built / "news_encoder/1/encoder.onnx").samefile(built / "news/1/encoder.onnx")
    runtime = built / "news_encoder/1/kobart_runtime/errors.py"
    assert runtime.samefile(built / "news/1/kobart_runtime/errors.py")
    assert not runtime.samefile(RUNTIME_PACKAGE / "errors.py")


def test_a_disk_without_hard_links_gets_copies(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr("builders.repository.os.link", refuse)
    output = build(BuildConfig(checkpoint=str(checkpoint), output=str(tmp_path / "build")))
    copy, original = output / "kobart_encoder/1/encoder.onnx", output / "kobart/1/encoder.onnx"
    assert not copy.samefile(original)
    assert copy.read_bytes() == original.read_bytes()


def test_configs_are_filled_in(built: Path) -> None:
    for name, batch in (("news", 0), ("news_encoder", 7), ("news_decoder", 7)):
        text = (built / name / "config.pbtxt").read_text(encoding="utf-8")
        config = text_format.Parse(text, TritonConfig())
        assert (config.name, config.max_batch_size) == (name, batch)


def test_the_runtime_reads_the_manifest(built: Path) -> None:
    config = ModelConfig.from_manifest(built / "news/1/manifest.json")
    assert replace(config, artefacts={}) == ModelConfig(
        name="news",
        runtime="onnxruntime",
        encoder_engine="onnxruntime",
        precision="fp32",
        ids=TokenIds(bos=1, eos=(1,), pad=3, decoder_start=1, forced_eos=2),
        shape=ModelShape(
            num_decoder_layers=2, num_heads=2, head_dim=8, vocab_size=160, num_candidates=16
        ),
        tokenizer=TokenizerConfig(add_eos=True),
        limits=Limits(max_batch_size=7, max_beams=4, max_source_length=64, max_target_length=64),
        defaults=GenerationSettings(num_beams=4, max_new_tokens=64),
        artefacts={},
    )


def test_the_manifest_states_sources_artefacts_and_accuracy(built: Path, checkpoint: Path) -> None:
    manifest = manifest_of(built)
    assert manifest["requested"] == {
        "precision": "fp32",
        "runtime": "auto",
        "encoder_engine": "auto",
        "cross_kv": "auto",
        "tune": False,
    }
    built_as = manifest["built"]
    assert (built_as["opset"], built_as["gpu"], built_as["precision_share"]) == (17, None, 1.0)
    assert built_as["products"] == {"encoder.onnx": {"fp32": 1.0}, "decoder.onnx": {"fp32": 1.0}}
    assert "TensorRT" in built_as["reason"]
    front = built / "news/1"
    assert manifest["artefacts"] == {name: sha256_of(front / name) for name in ARTEFACTS}
    assert manifest["artefact_bytes"] == {name: (front / name).stat().st_size for name in ARTEFACTS}
    files = manifest["checkpoint"]["files"]
    assert files["model.safetensors"] == sha256_of(checkpoint / "model.safetensors")
    assert (manifest["model"]["d_model"], manifest["model"]["encoder_layers"]) == (16, 1)
    assert manifest["versions"].keys() > {"python", "torch", "onnxruntime", "kobart-triton"}
    assert manifest["machine"]["cores"] >= 1
    verification = manifest["verification"]
    assert verification["passed"]
    assert verification["enforced"]
    assert 0 < verification["max_abs_error_logits"] <= verification["gate"] == 1e-4


def test_artefacts_verify_and_a_flipped_bit_is_found(built: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built / "news" / "1", tmp_path / "1")
    artefacts = ModelConfig.from_manifest(folder / "manifest.json").artefacts
    verify_artefacts(folder, artefacts, ARTEFACTS)
    content = bytearray((folder / "decoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "decoder.onnx").write_bytes(content)
    with pytest.raises(BuildError, match=r"decoder\.onnx is corrupt"):
        verify_artefacts(folder, artefacts, ARTEFACTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_layers": 2, "decoder_layers": 1, "vocab_size": 166},
        {"scale_embedding": True, "decoder_attention_heads": 4, "eos_token_id": [1, 9]},
        {"bos_token_id": 0, "decoder_start_token_id": 2, "forced_eos_token_id": 2},
        {"activation_function": "relu", "max_position_embeddings": 32},
    ],
)
def test_other_shapes_and_families_pass_the_gate(
    make_checkpoint: MakeCheckpoint, tmp_path: Path, changes: dict[str, Any]
) -> None:
    source = make_checkpoint(changes, {key: value for key, value in changes.items() if "id" in key})
    output = build(BuildConfig(checkpoint=str(source), output=str(tmp_path / "build")))
    assert manifest_of(output)["verification"]["passed"]


@pytest.fixture
def damaged_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export whose decoder differs a little from the checkpoint."""

    def export_damaged(model: Any, path: Path, num_candidates: int, *, joined: bool) -> None:
        export_decoder(model, path, num_candidates, joined=joined)
        graph = onnx.load(path)
        for tensor in graph.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
                weights = numpy_helper.to_array(tensor) * np.float32(1.001)
                tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
        onnx.save(graph, path)

    monkeypatch.setattr("builders.pipeline.export_decoder", export_damaged)


@pytest.mark.usefixtures("damaged_export")
def test_a_failed_gate_delivers_nothing_unless_forced(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BuildConfig(checkpoint=str(checkpoint), output=str(tmp_path / "build"))
    with pytest.raises(BuildError, match=r"differ from the checkpoint .* --force delivers"):
        build(config)
    assert list(tmp_path.iterdir()) == []

    output = build(replace(config, force=True))
    verification = manifest_of(output)["verification"]
    assert (verification["passed"], verification["enforced"]) == (False, False)
    assert "WARNING: the engines differ" in capsys.readouterr().out


def test_precision_is_read_back_from_the_file(built: Path, tmp_path: Path) -> None:
    """Half of the products are made float16; which of them, their share tells."""
    assert read_back(built / "news/1/encoder.onnx").products == {"fp32": 1.0}
    graph = onnx.load(built / "news/1/encoder.onnx")
    weights = [product.weight for product in weight_products(graph)]
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.graph.initializer}
    halved = {name for name in weights if sizes[name] == max(sizes[each] for each in weights)}
    for tensor in graph.graph.initializer:
        if tensor.name in halved:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    onnx.save(graph, tmp_path / "half.onnx")
    artefact = read_back(tmp_path / "half.onnx")
    share = sum(sizes[name] for name in halved) / sum(sizes[name] for name in weights)
    assert artefact.products["fp16"] == pytest.approx(share)
    assert 0 < share < 1


def test_the_command_prints_what_it_did(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "build")]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for line in (
        "runtime: onnxruntime (auto: this machine lacks ",
        "note: max_source_length is lowered from 1024 to 64, the checkpoint's positions\n",
        "note: the default max_new_tokens is lowered from 499 to 64",
        "ids:       bos 1, eos [1], pad 3, decoder start 1, forced bos None, forced eos 1\n",
        "precision: fp32 built, fp32 requested\n",
        f"next:      kobart-serve {tmp_path / 'build'}\n",
    ):
        assert line in shown
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {tmp_path / 'build'} exists: give --force")
    assert "Traceback" not in captured.err
    assert main([*arguments, "--force", "--runtime", "onnxruntime"]) == 0
    assert manifest_of(tmp_path / "build")["built"]["reason"] == "as asked"


def test_a_length_above_the_positions_fails_before_the_export(
    checkpoint: Path, tmp_path: Path
) -> None:
    config = BuildConfig(
        checkpoint=str(checkpoint), output=str(tmp_path / "build"), max_source_length=65
    )
    with pytest.raises(ConfigError, match="max_source_length must be at most 64"):
        build(config)
    assert list(tmp_path.iterdir()) == []


COMMANDS = {
    "file": [sys.executable, str(CHECKOUT / "builders" / "build_all.py")],
    "console script": [
        sys.executable, "-c", "import sys; from builders.build_all import main; sys.exit(main())",
    ],
}  # fmt: skip


def environment(command: str) -> dict[str, str]:
    """The file must find its packages by itself; the console script's are installed."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT) if command != "file" else ""}


def run(command: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMANDS[command], *arguments],
        cwd=folder, env=environment(command),
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_file_runs_from_anywhere(checkpoint: Path, tmp_path: Path) -> None:
    finished = run("file", ["--checkpoint", str(checkpoint)], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "next:      kobart-serve build/kobart-fp32\n" in finished.stdout
    assert manifest_of(tmp_path / "build/kobart-fp32")["name"] == "kobart"


@pytest.mark.parametrize("command", COMMANDS)
def test_errors_of_the_command_have_no_traceback(command: str, tmp_path: Path) -> None:
    finished = run(command, ["--max-beams", "0"], tmp_path)
    assert finished.returncode == 1
    assert finished.stderr == "error: max_beams must be above 0, got 0\n"
    assert list(tmp_path.iterdir()) == []


# The command, whose decoder is never exported.
ENDLESS_BUILD = """
import sys, time
from builders import pipeline
from builders.build_all import main

def never(*_, **__):
    print("half built", flush=True)
    time.sleep(1e6)

pipeline.export_decoder = never
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("sent", "exit_code", "left"),
    [(signal.SIGKILL, -9, [".lock", ".tmp"]), (signal.SIGINT, 130, [])],
)
def test_a_stopped_build_leaves_nothing_that_looks_like_one(
    sent: signal.Signals, exit_code: int, left: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "build")]
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_BUILD, *arguments],
        env=environment("console script"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    try:
        assert any(line.endswith("half built\n") for line in process.stdout)
        assert any(tmp_path.glob(".build.*.tmp/kobart/1/encoder.onnx"))
        process.send_signal(sent)
        assert process.wait(PATIENCE_S) == exit_code
    finally:
        process.kill()
        process.stdout.close()
    remains = list(tmp_path.iterdir())
    assert sorted(path.suffix for path in remains) == left
    assert all(path.name.startswith(".") for path in remains)

    assert main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["build"]
