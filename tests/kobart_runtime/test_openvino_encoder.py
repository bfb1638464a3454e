"""The encoder over OpenVINO: what it gives, what it refuses, what it keeps."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kobart_runtime import bindings, runners
from kobart_runtime.errors import EngineError
from kobart_runtime.model_config import ENCODER_FILE, ModelConfig
from kobart_runtime.onnxruntime_runner import OnnxRuntimeEncoder, OnnxRuntimeRunner
from kobart_runtime.openvino_encoder import OpenVinoEncoder
from kobart_runtime.runners import open_encoder, open_engine, open_runner
from tests.kobart_runtime.encoder_memory import REPOSITORY, taken_and_kept


@pytest.fixture(scope="module")
def config(mini_build: Path) -> ModelConfig:
    config = ModelConfig.from_manifest(mini_build / "manifest.json")
    return replace(config, encoder_engine="openvino")


@pytest.fixture(scope="module")
def folder(mini_build: Path) -> Path:
    return mini_build / "kobart/1"


@pytest.fixture(scope="module")
def encoder(folder: Path, config: ModelConfig) -> OpenVinoEncoder:
    return OpenVinoEncoder(folder / ENCODER_FILE, config.shape)


def sources(*lengths: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ids padded together, and their mask."""
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.random.default_rng(7).integers(10, 200, mask.shape).astype(np.int32)
    return np.where(mask, ids, 3).astype(np.int32), mask


@pytest.mark.parametrize("lengths", [(1,), (2, 17), (64, 64, 50)])
def test_it_gives_what_onnx_runtime_gives_as_far_as_bfloat16_goes(
    lengths: tuple[int, ...], encoder: OpenVinoEncoder, folder: Path, config: ModelConfig
) -> None:
    ids, mask = sources(*lengths)
    expected = OnnxRuntimeEncoder(folder / ENCODER_FILE, config.shape).encode(ids, mask)
    actual = encoder.encode(ids, mask)
    assert len(actual) == len(expected) == 2 * config.shape.num_decoder_layers
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        for row, length in enumerate(lengths):
            error = np.abs(ours[row, :, :length] - theirs[row, :, :length]).max()
            assert error < 0.03 * np.abs(theirs[row, :, :length]).max()


def test_neighbours_and_padding_change_nothing_that_counts(encoder: OpenVinoEncoder) -> None:
    ids, mask = sources(40, 9)
    alone = encoder.run(names := list(bindings.present_cross(0)), feeds(ids[1:, :9], mask[1:, :9]))
    together = encoder.run(names, feeds(ids, mask))
    for one, two in zip(alone, together, strict=True):
        assert np.abs(one[0] - two[1, :, :9]).max() < 0.03 * np.abs(one).max()


def feeds(ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {bindings.INPUT_IDS: ids, bindings.ATTENTION_MASK: mask}


def test_results_of_run_may_be_kept(encoder: OpenVinoEncoder) -> None:
    names = [bindings.present_cross(0)[1]]
    [kept] = encoder.run(names, feeds(*sources(12)))
    before = kept.copy()
    encoder.run(names, feeds(*(array + 1 for array in sources(12))))
    assert (kept == before).all()


@pytest.mark.parametrize("content", [None, b"", b"no graph"])
def test_a_file_that_is_no_engine_is_refused(
    content: bytes | None, config: ModelConfig, tmp_path: Path
) -> None:
    path = tmp_path / ENCODER_FILE
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=rf"{path} cannot be loaded"):
        OpenVinoEncoder(path, config.shape)


def test_what_the_engine_refuses_is_an_engine_error(encoder: OpenVinoEncoder) -> None:
    ids, mask = sources(5)
    name = bindings.present_cross(0)[0]
    for names, given in (
        ([name], feeds(ids[0], mask)),
        ([name], {"ids": ids}),
        (["no such output"], feeds(ids, mask)),
    ):
        with pytest.raises(EngineError, match="OpenVINO failed: "):
            encoder.run(names, given)
    assert encoder.run([name], feeds(ids, mask))[0].shape[2] == 5  # and goes on


def test_it_is_opened_where_the_manifest_says_so(folder: Path, config: ModelConfig) -> None:
    runner = open_runner(folder, config.engines)
    assert isinstance(runner, OnnxRuntimeRunner)
    ids, mask = sources(33)
    by_runner = [array.copy() for array in runner.encode(ids, mask)]
    names = [name for i in range(config.shape.num_decoder_layers) for name in
             bindings.present_cross(i)]  # fmt: skip
    by_engine = open_engine(folder, "encoder", config)(names, feeds(ids, mask))
    by_onnxruntime = open_engine(folder, "encoder", replace(config, encoder_engine="onnxruntime"))
    expected = by_onnxruntime(names, feeds(ids, mask))
    for one, two, other in zip(by_runner, by_engine, expected, strict=True):
        assert (one == two).all()
        assert (one != other).any()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_it_has_the_threads_that_were_asked_for(
    num_threads: int, folder: Path, config: ModelConfig
) -> None:
    encoder = open_encoder(folder, config.engines, num_threads)
    assert encoder._model.get_property("INFERENCE_NUM_THREADS") == num_threads


@pytest.mark.parametrize("in_bfloat16", [True, False])
def test_a_processor_that_it_is_not_for_is_told(
    in_bfloat16: bool,
    folder: Path,
    config: ModelConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened = SimpleNamespace(in_bfloat16=in_bfloat16, kv_dtype=np.float32)
    library = SimpleNamespace(OpenVinoEncoder=lambda path, shape, num_threads: opened)
    monkeypatch.setattr(runners, "_openvino", lambda: library)
    open_runner(folder, config.engines)
    assert ("--encoder-engine onnxruntime" in caplog.text) is not in_bfloat16


def test_without_openvino_such_a_build_says_what_it_needs(
    folder: Path, config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(runners, "import_module", missing)
    needs = r"this build needs OpenVINO, which cannot be imported .*: pip install openvino"
    with pytest.raises(EngineError, match=needs):
        open_runner(folder, config.engines)
    with pytest.raises(EngineError, match=needs):
        open_engine(folder, "encoder", config)


def test_nobody_is_called_over_the_network(folder: Path) -> None:
    """OpenVINO's import reports itself, unless it is kept from it."""
    code = f"""
import sys
events = []
sys.addaudithook(lambda event, given: events.append(event))
import numpy as np
from pathlib import Path
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.openvino_encoder import OpenVinoEncoder

folder = Path({str(folder)!r})
config = ModelConfig.from_manifest(folder / "manifest.json")
token = np.ones((1, 1), np.int32)
OpenVinoEncoder(folder / {ENCODER_FILE!r}, config.shape).encode(token, token)
assert "import" in events
outside = ("socket.", "urllib.", "http.", "os.fork", "subprocess.")
print([event for event in events if event.startswith(outside)])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_memory_of_a_large_encode_is_given_back(mini_build: Path) -> None:
    taken, kept = taken_and_kept(mini_build, "openvino")
    assert taken > 20_000  # KiB
    assert kept < 0.3 * taken
