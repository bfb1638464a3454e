"""The plan builder on the contract double of three TensorRT versions; no plan of it is real."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.plan_facts import PlanFacts
from builders.plans import check_precision
from builders.profiles import ShapeRange
from kobart_runtime.errors import BuildError, ConfigError
from tests.conftest import REPOSITORY
from tests.tensorrt_double.api import MAJORS, load_api
from tests.tensorrt_double.install import installed
from tests.tensorrt_double.plan import Plan
from tests.tensorrt_double.violation import ContractViolationError

PROFILES = [
    {"x": ShapeRange((1, 4), (2, 4), (2, 4))},
    {"x": ShapeRange((3, 4), (8, 4), (8, 4))},
]


@pytest.fixture(params=MAJORS)
def major(request: pytest.FixtureRequest) -> Iterator[str]:
    with installed(request.param):
        yield request.param


@pytest.fixture
def engine(major: str) -> Any:
    import builders.engine

    return builders.engine


def write_graph(path: Path, *, dtype: int = TensorProto.FLOAT, operator: str = "Add") -> Path:
    """y = x + weights, for x of [rows, 4]."""
    x = helper.make_tensor_value_info("x", dtype, ["rows", 4])
    y = helper.make_tensor_value_info("y", dtype, ["rows", 4])
    weights = np.ones(4, helper.tensor_dtype_to_np_dtype(dtype))
    node = helper.make_node(operator, ["x", "weights"], ["y"])
    constant = numpy_helper.from_array(weights, "weights")
    graph = helper.make_graph([node], "add", [x], [y], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def build(engine: Any, folder: Path, graph: Path, **options: Any) -> tuple[Any, Plan]:
    target = folder / "encoder.plan"
    facts = engine.build_plan(graph, target, PROFILES, engine.EngineOptions(**options))
    plan = Plan.read(target.read_bytes())
    assert plan is not None
    return facts, plan


def test_profiles_and_defaults_reach_tensorrt(engine: Any, major: str, tmp_path: Path) -> None:
    facts, plan = build(engine, tmp_path, write_graph(tmp_path / "g.onnx"))
    assert [profile["x"] for profile in plan.profiles] == [
        ((1, 4), (2, 4), (2, 4)),
        ((3, 4), (8, 4), (8, 4)),
    ]
    assert plan.flags == []
    assert plan.settings["workspace"] is None, "no limit unless asked for"
    assert plan.settings["verbosity"] in ("DETAILED", "VERBOSE")
    assert facts.tensorrt == load_api(major)["version"]
    assert facts.profiles[1]["x"] == {"min": (3, 4), "opt": (8, 4), "max": (8, 4)}
    layers = json.loads((tmp_path / "encoder.layers.json").read_text(encoding="utf-8"))
    assert layers["Bindings"] == ["x", "y"]


@pytest.mark.parametrize(
    ("precision", "dtype", "flags"),
    [("fp16", TensorProto.FLOAT16, ["FP16"]), ("int8", TensorProto.FLOAT, ["FP16", "INT8"])],
)
def test_types_come_from_the_graph_or_from_flags(
    engine: Any, major: str, tmp_path: Path, precision: str, dtype: int, flags: list[str]
) -> None:
    graph = write_graph(tmp_path / "g.onnx", dtype=dtype)
    facts, plan = build(engine, tmp_path, graph, precision=precision)
    typed = major != "8"
    assert facts.strongly_typed == typed == plan.settings["strongly_typed"]
    assert plan.flags == ([] if typed else flags)
    assert facts.builder_flags == (() if typed else tuple(map(str.lower, flags)))


def test_the_double_minds_missing_flags(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "g.onnx", dtype=TensorProto.FLOAT16)
    with installed("8"):
        import builders.engine as engine

        with pytest.raises(ContractViolationError, match="FP16 weights"):
            build(engine, tmp_path, graph)


def test_options_reach_tensorrt(engine: Any, tmp_path: Path) -> None:
    _, plan = build(
        engine,
        tmp_path,
        write_graph(tmp_path / "g.onnx"),
        workspace_bytes=64 << 20,
        optimization_level=5,
        version_compatible=True,
        hardware_compatible=True,
        sparse_weights=True,
    )
    assert plan.flags == ["SPARSE_WEIGHTS", "VERSION_COMPATIBLE"]
    assert plan.settings["workspace"] == 64 << 20
    assert plan.settings["optimization_level"] == 5
    assert plan.settings["hardware"] == "AMPERE_PLUS"


def test_tactic_sources_are_named(engine: Any, major: str, tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "g.onnx")
    _, plan = build(engine, tmp_path, graph, tactic_sources=("JIT_CONVOLUTIONS",))
    assert plan.settings["tactic_sources"] == ["JIT_CONVOLUTIONS"]


def test_too_small_a_workspace_is_refused_with_what_it_takes(engine: Any, tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "g.onnx")
    message = r"refused g\.onnx: a layer needs 1 MiB of workspace: give --workspace-mib 1 or more"
    with pytest.raises(BuildError, match=message):
        build(engine, tmp_path, graph, workspace_bytes=8)


def test_scratch_memory_is_reported_by_profile(engine: Any, major: str, tmp_path: Path) -> None:
    facts, plan = build(engine, tmp_path, write_graph(tmp_path / "g.onnx"))
    by_profile = (plan.scratch_bytes(0), plan.scratch_bytes(1))
    # 8.6 tells the largest alone.
    assert facts.scratch_bytes == (by_profile if major != "8" else (max(by_profile),) * 2)
    assert facts.kv_precision is None


def test_timings_are_kept_between_builds(engine: Any, tmp_path: Path) -> None:
    cache = tmp_path / "timing.cache"
    graph = write_graph(tmp_path / "g.onnx")
    build(engine, tmp_path, graph, timing_cache=cache)
    first = cache.read_bytes()
    build(engine, tmp_path, graph, timing_cache=cache)
    assert first
    assert cache.read_bytes().startswith(first)


def test_a_graph_that_tensorrt_refuses(engine: Any, tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "g.onnx", operator="BitwiseAnd", dtype=TensorProto.INT32)
    model = onnx.load(graph)
    model.opset_import[0].version = 18
    onnx.save(model, graph)
    with pytest.raises(BuildError, match=r"TensorRT .* refused g\.onnx"):
        build(engine, tmp_path, graph)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "precision must be one of fp32, fp16, int8, got 'bf16'"),
        ({"workspace_bytes": 0}, "workspace must be above 0 bytes, got 0"),
        ({"optimization_level": 6}, r"optimization_level must be 0\.\.5, got 6"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with installed("10"):
        import builders.engine as engine

        with pytest.raises(ConfigError, match=message):
            engine.EngineOptions(**options)


def test_the_builder_needs_numpy_polygraphy_and_tensorrt_alone() -> None:
    """So that it runs where those are installed and nothing else of this project's packages."""
    blocked = "{'torch', 'transformers', 'onnx', 'onnxruntime', 'yaml', 'tritonclient', 'google'}"
    program = f"""
import sys, types

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocker())
tensorrt = types.ModuleType("tensorrt")
tensorrt.__version__ = "10.0.0"
sys.modules["tensorrt"] = tensorrt
import builders.engine
print(builders.engine.EngineOptions.precision)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "fp32"


@pytest.mark.parametrize(
    ("told", "precision"),
    [
        (["Row major linear FP32", "Row major linear FP16 format"], "fp16"),
        (["Half", "Float", "Int8"], "fp16"),
        (["Float16"], "fp16"),
        (["Row major linear FP32", "Int32"], "fp32"),
        (["N/A due to dynamic shapes"], None),
    ],
)
def test_the_precision_is_what_the_inspector_tells(
    engine: Any, told: list[str], precision: str | None
) -> None:
    layers = json.dumps({"Layers": [{"Outputs": [{"Format/Datatype": word}]} for word in told]})
    facts = PlanFacts(
        asked="fp16",
        tensorrt="10",
        strongly_typed=True,
        builder_flags=(),
        profiles=[],
        layer_outputs=engine._count_types(layers),
        build_seconds=1.0,
    )
    assert facts.precision == precision


def test_a_plan_of_another_precision_is_refused() -> None:
    facts = PlanFacts(
        asked="int8",
        tensorrt="8.6.0",
        strongly_typed=False,
        builder_flags=("fp16", "int8"),
        profiles=[],
        layer_outputs={"fp16": 7, "int32": 2},
        build_seconds=1.0,
    )
    message = r"int8 was asked for, TensorRT 8\.6\.0 built decoder\.plan in fp16: take"
    with pytest.raises(BuildError, match=message):
        check_precision({"decoder.plan": facts}, "int8")
    check_precision({"decoder.plan": replace(facts, layer_outputs={})}, "int8")
