"""int8 by TensorRT's own calibrator, on the contract double of the versions that have it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import pipeline
from builders.config import BuildConfig
from builders.plan_calibration import PlanCalibration, decoder_shapes, fit
from builders.plan_feeds import plan_calibrations
from builders.runtime_choice import RuntimeChoice
from calibration.documents import Document, DocumentSet
from kobart_runtime import bindings
from kobart_runtime.errors import BuildError, ConfigError
from kobart_runtime.model_config import sha256_of
from tests.builders.conftest import MakeCheckpoint
from tests.builders.test_engine_build import calibration_data, summaries  # noqa: F401
from tests.tensorrt_double.install import installed
from tests.tensorrt_double.plan import Plan
from tests.tensorrt_double.plans import LIMITS, SHAPE, export_tiny
from tests.tensorrt_double.violation import ContractViolationError


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    export_tiny(folder)
    return folder


def documents(sha256: str = "a") -> DocumentSet:
    lengths = ((40, 37), (33, 5), (33, 9), (2, 3))
    made = [Document(tuple(range(5, 5 + s)), tuple(range(5, 5 + t))) for s, t in lengths]
    return DocumentSet(sha256, tuple(made))


def build(
    graphs: Path, folder: Path, given: DocumentSet, role: int = 1
) -> tuple[Any, dict[str, Any], list[str]]:
    """Build one plan with the installed double."""
    from builders.engine import EngineOptions, build_plan
    from builders.plans import all_profiles

    calibration = plan_calibrations(graphs, SHAPE, given, folder)[role]
    name = ("encoder", "decoder")[role]
    plan_path = folder / f"{name}.plan"
    profiles = all_profiles(SHAPE, LIMITS)[role]
    options = EngineOptions(precision="int8")
    facts = build_plan(graphs / f"{name}.onnx", plan_path, profiles, options, calibration)
    plan = Plan.read(plan_path.read_bytes())
    assert plan is not None
    return facts, plan.settings, plan.flags


@pytest.mark.parametrize("major", ["8", "10"])
@pytest.mark.parametrize("role", [0, 1])
def test_documents_reach_the_calibrator(
    graphs: Path, tmp_path: Path, major: str, role: int
) -> None:
    with installed(major) as cuda:
        facts, settings, flags = build(graphs, tmp_path, documents(), role)
        assert cuda.num_allocations == 0, "the batches' memory was given back"
    assert flags == ["FP16", "INT8"]
    assert not facts.strongly_typed
    assert facts.precision == "int8"
    found = facts.calibration
    assert found.calibrator == "IInt8EntropyCalibrator2"
    # One batch of four documents; steps 0, 4, ... 36 of the decoder.
    assert found.num_batches == (1 if role == 0 else 10)
    cache = tmp_path / found.cache
    assert settings["calibration"] == cache.read_bytes()
    assert found.cache_sha256 == sha256_of(cache)
    assert not list(tmp_path.glob("*.partial"))


def test_a_cache_is_used_for_the_same_graph_and_documents_alone(
    graphs: Path, tmp_path: Path
) -> None:
    with installed("10"):
        first, *_ = build(graphs, tmp_path, documents())
        again, settings, _ = build(graphs, tmp_path, documents())
        other, *_ = build(graphs, tmp_path, documents("b"))
        changed = shutil.copytree(graphs, tmp_path / "changed")
        with (changed / "decoder.onnx").open("ab") as file:
            file.write(b"\x82\x06\x00")  # an empty field that ONNX does not know
        fourth, *_ = build(changed, tmp_path, documents())
    with installed("8"):
        older, *_ = build(graphs, tmp_path, documents())
    assert (again.calibration.cache_reused, again.calibration.num_batches) == (True, 0)
    assert again.calibration.cache_sha256 == first.calibration.cache_sha256
    assert settings["calibration"] == (tmp_path / first.calibration.cache).read_bytes()
    for facts in (other, fourth, older):
        assert not facts.calibration.cache_reused
        assert facts.calibration.num_batches == 10
    assert len(list(tmp_path.glob(".tensorrt-calibration-*.cache"))) == 4


def test_batches_have_one_shape_and_real_caches_of_several_lengths(graphs: Path) -> None:
    encoder, decoder = plan_calibrations(graphs, SHAPE, documents(), graphs)
    assert encoder.shapes[bindings.INPUT_IDS] == (16, 40)
    lengths = set()
    for batch in decoder.batches():
        assert {name: array.shape for name, array in batch.items()} == decoder.shapes
        seen = int(batch[bindings.DECODER_ATTENTION_MASK][0].sum())
        key = batch[bindings.past_self(0)[0]][0]
        assert key[:, :seen].all(), "what a mask shows was computed"
        assert not key[:, seen + 1 :].any()  # the step's own entry is there, and hidden
        lengths.add(seen)
    assert lengths == set(range(0, 37, 4))


def test_arrays_are_cut_repeated_and_padded() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert fit(array, (3, 2)).tolist() == [[0, 1], [3, 4], [0, 1]]
    assert fit(array, (1, 5)).tolist() == [[0, 1, 2, 0, 0]]


def test_long_sources_are_cut() -> None:
    sizes = decoder_shapes(SHAPE, longest_source=900, longest_target=33)
    assert sizes[bindings.ENCODER_ATTENTION_MASK] == (4, 512)
    assert sizes[bindings.DECODER_ATTENTION_MASK] == (4, 1, 64)


def test_a_calibration_without_batches_fails(graphs: Path, tmp_path: Path) -> None:
    with installed("10"):
        from builders.engine import EngineOptions, build_plan
        from builders.plans import all_profiles

        calibration = PlanCalibration(
            shapes={bindings.INPUT_IDS: (1, 4), bindings.ATTENTION_MASK: (1, 4)},
            feeds=list,
            caches=tmp_path,
            documents="none",
        )
        profiles, _ = all_profiles(SHAPE, LIMITS)
        with pytest.raises((BuildError, ContractViolationError), match="no calibration"):
            build_plan(
                graphs / "encoder.onnx",
                tmp_path / "encoder.plan",
                profiles,
                EngineOptions(precision="int8"),
                calibration,
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("major", ["10", "11"])
def test_a_whole_build(
    major: str,
    make_checkpoint: MakeCheckpoint,
    calibration_data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice = RuntimeChoice(runtime="tensorrt", reason="contract double", gpu=None)
    monkeypatch.setattr(pipeline, "choose_runtime", lambda runtime, precision: choice)
    output = tmp_path / "builds" / "plans"
    config = BuildConfig(
        checkpoint=str(make_checkpoint()),
        precision="int8",
        runtime="tensorrt",
        int8_calibrator="tensorrt",
        calibration_data=str(calibration_data),
        output=str(output),
        max_batch_size=2,
        force=True,  # the weights are random: nothing is asked of their accuracy
    )
    with installed(major):
        if major == "11":
            with pytest.raises(ConfigError, match=r"TensorRT 11\.4\.0\.106 has no IInt8Entropy"):
                pipeline.build(config)
            assert not output.exists()
            return
        pipeline.build(config)
        manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
        assert all(isinstance(text, str) for text in summaries(output))
    built = manifest["built"]
    assert (built["precision"], built["quantization"]) == ("int8", "IInt8EntropyCalibrator2")
    assert built["tensorrt"]["verified_on_gpu"] is False
    for plan in built["tensorrt"]["plans"].values():
        assert plan["precision"] == "int8"
        assert plan["builder_flags"] == ["fp16", "int8"]
        found = plan["calibration"]
        assert found["documents"] == sha256_of(calibration_data)
        assert sha256_of(output.parent / found["cache"]) == found["cache_sha256"]


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp16", "runtime": "tensorrt"},
        {"precision": "int8", "runtime": "onnxruntime"},
        {"precision": "int8"},
    ],
)
def test_it_is_for_int8_plans_alone(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is for precision int8 and runtime tensorrt, got"):
        BuildConfig(int8_calibrator="tensorrt", **options)
