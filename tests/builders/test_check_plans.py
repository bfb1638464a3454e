"""TensorRT's graphs, parsed and built by NVIDIA's own compiler on a machine without a GPU."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from builders import compiler_abi
from builders.build_all import main as kobart_build
from builders.check_plans import check_folder, contract_faults, main
from builders.checkpoint import RANDOM_CHECKPOINT
from builders.compiler import CompiledGraph, compile_graph
from builders.compiler_abi import INSTALL, PACKAGE
from builders.config import BuildConfig
from builders.int8_half import write_int8_half
from builders.pipeline import build, load_source
from builders.precision import make_half
from builders.prepared_plans import JOBS_FILE, read_jobs, write_jobs
from builders.quantize_dynamic import write_dynamic
from builders.quantize_qdq import quantize_qdq
from calibration import calibrate
from calibration.documents import DocumentSet
from calibration.scales import GRAPH_FILES
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig
from tests.builders.conftest import MakeCheckpoint
from tests.conftest import MINI_CHECKPOINT

PRECISIONS = ("fp32", "fp16", "int8")
NUM_DOCUMENTS = 8  # few: what is looked at here is the compiler's work

needs_compiler = pytest.mark.skipif(
    find_spec(PACKAGE) is None, reason=f"NVIDIA's compiler is not installed: {INSTALL}"
)

PRUNING = ("structured=0.2", "layers=encoder:2,decoder:2")


@pytest.fixture(scope="module")
def documents() -> DocumentSet:
    config = BuildConfig(checkpoint=str(MINI_CHECKPOINT), precision="fp16")
    found = load_source(config)[0].documents
    assert found
    return found.sample(NUM_DOCUMENTS)


@pytest.fixture(scope="module", params=[(), PRUNING], ids=["whole", "pruned"])
def prepared(
    request: pytest.FixtureRequest,
    documents: DocumentSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """kobart-mini's prepared folder in each precision, fitted to a few documents in a quick way."""
    root = tmp_path_factory.mktemp("prepared")
    config = BuildConfig(
        checkpoint=str(MINI_CHECKPOINT),
        prune=request.param or None,
        runtime="tensorrt",
        prepare=True,
        output=str(root / "fp32"),
    )
    build(config)
    folders = {precision: root / precision for precision in PRECISIONS}
    shape = ModelConfig.from_manifest(root / "fp32" / MANIFEST_NAME).shape
    jobs = read_jobs(root / "fp32")
    if request.param:  # one profile of each engine is enough to see another shape of model
        jobs = [replace(job, profiles=job.profiles[:1]) for job in jobs]
    for precision, folder in folders.items():
        folder.mkdir(exist_ok=True)
        write_jobs(folder, [replace(job, precision=precision) for job in jobs])
        if precision != "fp32":
            shutil.copy(root / "fp32" / MANIFEST_NAME, folder)
    make_half(folders["fp32"], folders["fp16"], shape, documents)
    scales = calibrate(folders["fp32"], shape, documents, method="minmax").scales
    quantized = root / "qdq"
    quantized.mkdir()
    for name in GRAPH_FILES:
        quantize_qdq(folders["fp32"] / name, quantized / name, scales[name])
    files = {name: name for name in GRAPH_FILES}
    write_int8_half(quantized, files, folders["int8"], shape, documents)
    return folders


@pytest.fixture(scope="module")
def tiny(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of a tiny checkpoint; read only."""
    return build(
        BuildConfig(
            checkpoint=str(make_checkpoint()),
            runtime="tensorrt",
            prepare=True,
            output=str(tmp_path_factory.mktemp("prepared") / "tiny"),
            max_batch_size=2,
            max_beams=2,
        )
    )


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(tiny, tmp_path / "folder"))


@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_compiler_builds_kobart_mini(prepared: dict[str, Path], precision: str) -> None:
    folder = prepared[precision]
    encoder, decoder = reports = compile_all(folder)
    for job, compiled in zip(read_jobs(folder), reports, strict=True):
        assert compiled.refusals == ()
        assert compiled.plan_bytes > 1 << 20
        assert len(compiled.profiles) == len(job.profiles)
        for profile in compiled.profiles:
            assert profile.activation_bytes > 0
            assert profile.num_kernels > 10
    num_layers = ModelConfig.from_manifest(folder / MANIFEST_NAME).shape.num_decoder_layers
    wanted = {"fp32": {"Float"}, "fp16": {"Half"}, "int8": {"Int8", "Half"}}[precision]
    for profile in decoder.profiles:
        assert set(profile.products) <= wanted
        # Of itself and of the source, in each layer; without a copy of the probabilities.
        assert profile.num_attentions == (0 if precision == "fp32" else 2 * num_layers)
        if precision != "fp32":
            assert profile.num_kv_copies <= 2 * num_layers
    for profile in encoder.profiles:
        assert set(profile.products) == {"int8": {"Int8"}}.get(precision, wanted)
        assert (profile.num_attentions > 0) == (precision != "fp32")


def compile_all(folder: Path) -> list[CompiledGraph]:
    """Both graphs, which must be as the contract has them."""
    config = ModelConfig.from_manifest(folder / MANIFEST_NAME)
    found = []
    for job in read_jobs(folder):
        compiled = compile_graph(folder / job.graph, job.profiles)
        assert contract_faults(job, compiled, config) == []
        found.append(compiled)
    return found


@needs_compiler
def test_a_graph_for_cpus_is_refused_with_node_and_operator(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dynamic(folder / "decoder.onnx", folder / "decoder.onnx", [], unsigned=False)
    assert main([str(folder)]) == 1
    output = capsys.readouterr().out
    assert "encoder.onnx (fp32): accepted" in output
    refused = output[output.index("decoder.onnx (fp32): REFUSED") :]
    assert "operator DynamicQuantizeLinear" in refused
    assert "  node " in refused


@needs_compiler
def test_an_input_of_another_type_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(folder / "encoder.onnx")
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, folder / "encoder.onnx")
    assert main([str(folder)]) == 1
    assert "input input_ids is INT64 [-1, -1], not INT32 [-1, -1]" in capsys.readouterr().out


@needs_compiler
def test_profiles_that_miss_a_shape_of_the_loop_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shorter = json.loads((folder / JOBS_FILE).read_text(encoding="utf-8"))
    del shorter["plans"][1]["profiles"][0]  # batches of one request
    (folder / JOBS_FILE).write_text(json.dumps(shorter), encoding="utf-8")
    report_path = folder / "report.json"
    assert main([str(folder), "--json", str(report_path)]) == 1
    assert "no optimization profile accepts" in capsys.readouterr().out
    report = json.loads(report_path.read_text(encoding="utf-8"))
    assert [graph["accepted"] for graph in report["graphs"]] == [True, False]


@needs_compiler
def test_too_small_a_workspace_is_refused_with_what_it_takes(tiny: Path) -> None:
    job = read_jobs(tiny)[1]
    compiled = compile_graph(tiny / job.graph, job.profiles, workspace_bytes=1)
    [refusal] = compiled.refusals
    assert "--workspace-mib" in refusal


@needs_compiler
def test_targets_that_the_compiler_does_not_know(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny), "--target", "12345"]) == 1
    assert "TensorRT for RTX 1.7.1 does not build for 12345" in capsys.readouterr().err


@needs_compiler
def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_abi, "VERSION", 10801)
    with pytest.raises(BuildError, match=r"holds version 10701 .* is written for 10801: pip"):
        compiler_abi.Library(lambda severity, text: None)


def test_without_the_compiler_it_says_how_to_get_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiler_abi, "find_spec", lambda name: None)
    assert main([str(tiny)]) == 1
    assert f"NVIDIA's compiler is not installed: {INSTALL}" in capsys.readouterr().err


def test_a_folder_that_was_not_prepared(
    mini_build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(mini_build)]) == 1
    assert "plans.json is no list of plans" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "prepare is for runtime tensorrt with int8_calibrator qdq, got auto and qdq"),
        (
            ["--runtime", "tensorrt", "--precision", "int8", "--int8-calibrator", "tensorrt"],
            "got tensorrt and tensorrt: ask for those, or leave prepare out",
        ),
    ],
)
def test_what_cannot_be_prepared(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kobart_build(["--prepare", *flags]) == 1
    assert message in capsys.readouterr().err


def test_a_prepared_folder_has_graphs_profiles_and_an_honest_manifest(tiny: Path) -> None:
    names = {path.name for path in tiny.iterdir()}
    assert names == {"encoder.onnx", "decoder.onnx", JOBS_FILE, MANIFEST_NAME}
    manifest = json.loads((tiny / MANIFEST_NAME).read_text(encoding="utf-8"))
    built = manifest["built"]
    assert (built["runtime"], built["prepared"], built["tensorrt"]) == ("tensorrt", True, None)
    assert set(manifest["artefacts"]) == {"encoder.onnx", "decoder.onnx"}
    nodes = [node.name for node in onnx.load(tiny / "decoder.onnx").graph.node]
    assert not [name for name in nodes if "candidates_" in name or "_wide_" in name]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_compiler_builds_the_full_size(precision: str, tmp_path: Path) -> None:
    documents = {"calibration_data": str(MINI_CHECKPOINT / "dev.jsonl")}
    folder = build(
        BuildConfig(
            checkpoint=RANDOM_CHECKPOINT,
            precision=precision,
            runtime="tensorrt",
            prepare=True,
            output=str(tmp_path / precision),
            **({} if precision == "fp32" else documents),  # type: ignore[arg-type]
        )
    )
    assert [report.faults for report in check_folder(folder)] == [(), ()]
