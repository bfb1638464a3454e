"""What runs the encoder, and what is timed to decide it."""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import encoder_choice
from builders.agreement import Teacher
from builders.choosing import Policy, encoder_engine
from builders.cpu_engines import CpuEngines
from builders.cross_kv_choice import CrossKvChoice
from builders.encoder_choice import (
    EncoderChoice,
    choose_encoder,
    encode_ms,
    find_openvino,
)
from builders.export import export_decoder, export_encoder
from builders.pipeline import Source
from builders.precision import AGREEMENT_GATES, PORTABLE_FILES
from builders.processor import Processor
from builders.timing import NUM_ROUNDS
from calibration.documents import DocumentSet
from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, sha256_of
from kobart_runtime.openvino_encoder import OpenVinoEncoder

GATE = AGREEMENT_GATES["int8"]
AVX2 = Processor(name="AMD EPYC", flags=("avx2",))
AMX = Processor(name="Intel Xeon", flags=("avx2", "avx512f", "avx512_vnni", "amx_int8"))


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(encoder_choice, "import_module", missing)


def test_openvino_is_found_unless_the_other_is_asked_for() -> None:
    assert find_openvino("onnxruntime") is None
    for asked in ("auto", "openvino"):
        assert find_openvino(asked).OpenVinoEncoder is OpenVinoEncoder


@pytest.mark.usefixtures("no_openvino")
def test_only_who_asks_for_openvino_must_have_it(mini: Source, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--encoder-engine openvino: OpenVINO cannot be imported"):
        find_openvino("openvino")
    assert find_openvino("auto") is None
    for policy in (policy_of(AMX), policy_of(AMX, tune=True)):
        chosen = choose("auto", tmp_path, mini, policy)
        assert chosen.engine == "onnxruntime"
        assert chosen.reason == encoder_engine(AMX, has_openvino=False).reason


def test_without_amx_no_engine_is_opened(mini: Source, tmp_path: Path) -> None:
    chosen = choose("auto", tmp_path, mini, policy_of(AVX2))
    reason = "rule: without AMX OpenVINO's encoder is the slower one"
    assert chosen == EncoderChoice(engine="onnxruntime", reason=reason)


@pytest.fixture
def graphs(mini: Source, tmp_path: Path) -> Path:
    """An encoder and a decoder of float32, which are their own portable graphs."""
    export_encoder(mini.checkpoint.model, tmp_path / ENCODER_FILE)
    export_decoder(mini.checkpoint.model, tmp_path / DECODER_FILE, mini.shape.num_candidates)
    shutil.copyfile(tmp_path / ENCODER_FILE, tmp_path / PORTABLE_FILES[ENCODER_FILE])
    return tmp_path


@pytest.fixture
def few(mini: Source) -> Source:
    assert mini.documents
    documents = mini.documents.sample(4)
    return replace(mini, documents=documents, teacher=Teacher(mini.checkpoint, documents))


def test_with_amx_openvino_encodes_untimed(few: Source, graphs: Path) -> None:
    chosen = choose("auto", graphs, few, policy_of(AMX))
    assert (chosen.engine, chosen.fell_back, chosen.encode_ms) == ("openvino", False, {})
    assert chosen.reason == encoder_engine(AMX, has_openvino=True).reason
    assert chosen.openvino_agreement is not None
    assert chosen.openvino_agreement >= GATE
    assert (graphs / ENCODER_FILE).samefile(graphs / PORTABLE_FILES[ENCODER_FILE])


def test_below_the_gate_onnx_runtime_encodes_and_the_reason_says_so(
    few: Source, graphs: Path
) -> None:
    """Another model's encoder lies where the portable graph should."""
    model = copy.deepcopy(few.checkpoint.model)
    with torch.no_grad():
        model.model.encoder.layers[0].fc2.weight.mul_(30)
    export_encoder(model, graphs / PORTABLE_FILES[ENCODER_FILE])
    before = sha256_of(graphs / ENCODER_FILE)
    chosen = choose("auto", graphs, few, policy_of(AMX))
    assert (chosen.engine, chosen.fell_back) == ("onnxruntime", True)
    below = r"openvino agrees on \d+\.\d\d% of the tokens, gate 97\.0%: onnxruntime instead"
    assert re.fullmatch(below, chosen.reason)
    assert sha256_of(graphs / ENCODER_FILE) == before
    cpu = CpuEngines(encoder=chosen, cross_kv=CrossKvChoice(kept="float", reason=""))
    assert cpu.warnings == (chosen.reason,)


@pytest.mark.parametrize(("openvino_ms", "engine"), [(0.5, "openvino"), (1.5, "onnxruntime")])
def test_tuning_takes_the_faster_on_any_processor(
    openvino_ms: float,
    engine: str,
    few: Source,
    graphs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {"onnxruntime": 1.0, "openvino": openvino_ms}
    monkeypatch.setattr(encoder_choice, "encode_ms", lambda encoders, documents: times)
    chosen = choose("auto", graphs, few, policy_of(AVX2, tune=True))
    assert (chosen.engine, chosen.encode_ms) == (engine, times)
    assert chosen.reason.startswith("tune: onnxruntime 1.0 ms, openvino ")


def test_what_is_asked_for_is_not_timed(mini: Source, tmp_path: Path) -> None:
    chosen = choose("onnxruntime", tmp_path, mini, policy_of(AMX, tune=True))
    assert chosen == EncoderChoice(engine="onnxruntime", reason="as asked")


def policy_of(processor: Processor, *, tune: bool = False) -> Policy:
    return Policy(processor=processor, tune=tune, gate=GATE)


def choose(asked: str, folder: Path, source: Source, policy: Policy) -> EncoderChoice:
    """In a folder without graphs it fails if one is opened."""
    assert source.documents
    assert source.teacher
    return choose_encoder(asked, policy, folder, source.shape, source.documents, source.teacher)


class _Recording:
    """An encoder that does nothing but tell what it was given."""

    kv_dtype = np.float32

    def __init__(self) -> None:
        self.given: list[Any] = []

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        self.given.append((input_ids.tolist(), int(attention_mask.sum())))
        return []

    def give_back_freed(self) -> None:
        raise AssertionError("not asked for")


def test_each_source_is_encoded_alone_by_both(mini: Source) -> None:
    assert mini.documents
    documents: DocumentSet = mini.documents.sample(5)
    one, two = _Recording(), _Recording()
    assert set(encode_ms({"one": one, "two": two}, documents)) == {"one", "two"}
    alone = [([list(each.input_ids)], len(each.input_ids)) for each in documents.documents]
    assert one.given == two.given == NUM_ROUNDS * alone
