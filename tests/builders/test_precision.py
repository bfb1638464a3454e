"""fp16 and int8: accuracy on kobart-mini, what stays float32, and what a build delivers."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from builders.agreement import Teacher
from builders.artefact import read_back
from builders.choosing import Choice
from builders.config import BuildConfig
from builders.export import export_decoder, export_encoder
from builders.half_precision import convert_to_half
from builders.int8_half import write_int8_half
from builders.pipeline import Source, build, load_source
from builders.precision import AGREEMENT_GATES, Int8Maker, choose, first_passing, make_half
from builders.quantize_dynamic import write_dynamic
from builders.quantize_qdq import quantize_columns, quantize_qdq
from builders.sensitivity import leave_out, rank
from calibration import Scales, calibrate, encoder_feeds
from calibration.graph import weight_products
from calibration.scales import GRAPH_FILES
from kobart_documents import read_pairs
from kobart_runtime import bindings
from kobart_runtime.errors import BuildError, ConfigError, DocumentError
from kobart_runtime.model_config import (
    CROSS_INT8_FILES,
    DECODER_FILE,
    ENCODER_FILE,
    sha256_of,
)
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner, open_session, run_session
from kobart_runtime.service import SummarizationService
from tests.conftest import MINI_CHECKPOINT

MakeCheckpoint = Callable[..., Path]
GATE = AGREEMENT_GATES["int8"]
MAX_DOCUMENTS = 20  # of the dev documents: enough for all lengths


def export(source: Source, folder: Path) -> None:
    export_encoder(source.checkpoint.model, folder / ENCODER_FILE)
    export_decoder(source.checkpoint.model, folder / DECODER_FILE, source.shape.num_candidates)


@pytest.fixture(scope="module")
def mini(mini: Source) -> Source:
    assert mini.documents
    documents = mini.documents.sample(MAX_DOCUMENTS)
    return replace(mini, documents=documents, teacher=Teacher(mini.checkpoint, documents))


@pytest.fixture(scope="module")
def graphs(mini: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float32")
    export(mini, folder)
    return folder


@pytest.fixture(scope="module")
def scales(mini: Source, graphs: Path) -> Scales:
    assert mini.documents
    return calibrate(graphs, mini.shape, mini.documents)


def qdq_agreement(mini: Source, graphs: Path, scales: Scales, factor: float, to: Path) -> float:
    for name in GRAPH_FILES:
        scaled = {tensor: factor * scale for tensor, scale in scales.scales[name].items()}
        quantize_qdq(graphs / name, to / name, scaled)
    assert mini.teacher
    return mini.teacher.agreement(to, mini.shape)


@pytest.mark.slow
def test_entropy_scales_are_as_good_as_minmax(
    mini: Source, graphs: Path, scales: Scales, tmp_path: Path
) -> None:
    assert mini.documents
    minmax = calibrate(graphs, mini.shape, mini.documents, method="minmax")
    entropy_share = qdq_agreement(mini, graphs, scales, 1, tmp_path)
    assert entropy_share >= GATE
    assert entropy_share >= qdq_agreement(mini, graphs, minmax, 1, tmp_path)


@pytest.mark.parametrize("factor", [8, 1 / 8])
def test_wrong_scales_fail_the_gate(
    factor: float, mini: Source, graphs: Path, scales: Scales, tmp_path: Path
) -> None:
    assert qdq_agreement(mini, graphs, scales, factor, tmp_path) < GATE


def test_scales_belong_to_the_graphs_of_an_fp32_build(scales: Scales, mini_build: Path) -> None:
    """Another export of the same checkpoint gives the same bytes, so scales can be used again."""
    encoder = mini_build / "kobart/1" / ENCODER_FILE
    assert scales.models[ENCODER_FILE] == sha256_of(encoder)


def test_columns_are_symmetric_and_within_half_a_step() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    weight[:, 1] = 0
    values, column_scales = quantize_columns(weight)
    assert values.dtype == np.int8
    assert np.abs(values.astype(int)).max() == 127
    assert (np.abs(values * column_scales - weight) <= column_scales / 2 + 1e-7).all()


def test_the_fastest_that_passes_is_run() -> None:
    times = {"qdq": 2.0, "dynamic": 1.0}
    assert choose({"qdq": 0.99, "dynamic": 0.99}, times, GATE).taken == "dynamic"
    below = choose({"qdq": 0.99, "dynamic": 0.9}, times, GATE)
    assert (below.taken, below.fell_back) == ("qdq", True)
    assert "dynamic agrees on 90.00% of the tokens, gate 97.0%: qdq instead" in below.reason
    assert choose({"qdq": 0.5, "dynamic": 0.4}, times, GATE).taken == "qdq"


def test_the_rules_kind_is_run_if_it_passes() -> None:
    rule = Choice(taken="dynamic", reason="rule: VNNI")
    assert first_passing(rule, {"qdq": 1.0, "dynamic": 0.97}, GATE) == rule
    below = first_passing(rule, {"qdq": 0.96, "dynamic": 0.9, "dynamic-unsigned": 0.98}, GATE)
    assert (below.taken, below.fell_back) == ("dynamic-unsigned", True)
    assert below.reason.endswith(
        "dynamic agrees on 90.00% of the tokens, gate 97.0%: dynamic-unsigned instead"
    )


@pytest.mark.parametrize("unsigned", [False, True])
def test_dynamic_graphs_agree_and_say_what_their_weights_are(
    unsigned: bool, mini: Source, graphs: Path, tmp_path: Path
) -> None:
    assert mini.teacher
    for name in GRAPH_FILES:
        write_dynamic(graphs / name, tmp_path / name, unsigned=unsigned)
        artefact = read_back(tmp_path / name)
        expected = "dynamic-unsigned" if unsigned else "dynamic"
        assert (artefact.precision, artefact.quantization) == ("int8", expected)
    assert mini.teacher.agreement(tmp_path, mini.shape) >= GATE


def test_half_graphs_agree_and_keep_float32_where_it_is_needed(
    mini: Source, graphs: Path, tmp_path: Path
) -> None:
    assert mini.documents
    assert mini.teacher
    conversion = make_half(graphs, tmp_path, mini.shape, mini.documents)
    assert conversion.float32_nodes == ()
    assert mini.teacher.agreement(tmp_path, mini.shape) >= AGREEMENT_GATES["fp16"]
    for name in GRAPH_FILES:
        assert read_back(tmp_path / name).precision == "fp16"
        assert (tmp_path / name).stat().st_size < 0.52 * (graphs / name).stat().st_size
        assert_float32_at(tmp_path / name, {"LayerNormalization", "Softmax", "TopK", "Exp", "Log"})


def test_int8_products_agree_inside_float16_graphs(
    mini: Source, graphs: Path, scales: Scales, tmp_path: Path
) -> None:
    """What TensorRT builds int8 plans from, as ONNX Runtime executes it."""
    quantized, target = tmp_path / "qdq", tmp_path / "mixed"
    quantized.mkdir()
    target.mkdir()
    portable = qdq_agreement(mini, graphs, scales, 1, quantized)
    assert mini.documents
    files = {name: name for name in GRAPH_FILES}
    assert write_int8_half(quantized, files, target, mini.shape, mini.documents) == ()
    assert mini.teacher
    agreement = mini.teacher.agreement(target, mini.shape)
    assert agreement >= GATE
    assert agreement >= portable - 0.005
    for name in GRAPH_FILES:
        before, after = onnx.load(graphs / name), onnx.load(target / name)
        products = {product.node for product in weight_products(before)}
        assert len(weights_of(after)) == len(products)
        assert kv_types(after) == {onnx.TensorProto.FLOAT16}
        assert_float32_at(target / name, {"LayerNormalization", "Softmax"})


def weights_of(model: onnx.ModelProto) -> list[str]:
    """Weights that are stored as int8."""
    return [
        tensor.name
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]


def kv_types(model: onnx.ModelProto) -> set[int]:
    values = [*model.graph.input, *model.graph.output]
    return {value.type.tensor_type.elem_type for value in values if bindings.is_kv(value.name)}


def assert_float32_at(path: Path, operators: set[str]) -> None:
    """These operators see float32 alone, and it does not come by way of float16 from another."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.output, *graph.input)
    }
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in operators:
            assert types[node.output[0]] == onnx.TensorProto.FLOAT, node.name
        if node.op_type == "Cast" and types[node.output[0]] == onnx.TensorProto.FLOAT:
            before = producers.get(node.input[0])
            assert before is None or before.op_type != "Cast", node.name


def test_caches_of_half_engines_are_float16(mini: Source, graphs: Path, tmp_path: Path) -> None:
    assert mini.documents
    make_half(graphs, tmp_path, mini.shape, mini.documents.sample(2))
    runner = OnnxRuntimeRunner(tmp_path, mini.shape)
    cache = runner.new_cache(1, 2, 3)
    assert {array.dtype for array in (*cache.self_kv, *cache.cross_kv)} == {np.dtype(np.float16)}


def test_what_overflows_float16_stays_float32(mini: Source, tmp_path: Path) -> None:
    """fc1 gives a million times as much, fc2 takes as much less: what is between is too large.

    Other weights than those of kobart-mini, so a model of its own.
    """
    source, _ = load_source(BuildConfig(checkpoint=str(MINI_CHECKPOINT), precision="fp16"))
    assert source.documents
    layer = source.checkpoint.model.model.encoder.layers[0]
    with torch.no_grad():
        layer.fc1.weight.mul_(1e6)
        layer.fc1.bias.mul_(1e6)
        layer.fc2.weight.mul_(1e-6)
    export_encoder(source.checkpoint.model, tmp_path / "float32.onnx")
    feeds = list(encoder_feeds(source.documents.sample(4)))
    kept = convert_to_half(tmp_path / "float32.onnx", tmp_path / "half.onnx", feeds)
    assert any("activation_fn" in node for node in kept)

    outputs = list(bindings.present_cross(0))
    expected = run_session(open_session(tmp_path / "float32.onnx"), outputs, feeds[0])
    actual = run_session(open_session(tmp_path / "half.onnx"), outputs, feeds[0])
    for half, full in zip(actual, expected, strict=True):
        np.testing.assert_allclose(half.astype(np.float32), full, atol=0.1)


def test_kv_too_large_for_float16_is_refused(tmp_path: Path) -> None:
    source, _ = load_source(BuildConfig(checkpoint=str(MINI_CHECKPOINT), precision="fp16"))
    assert source.documents
    with torch.no_grad():
        source.checkpoint.model.model.decoder.layers[0].encoder_attn.v_proj.weight.mul_(1e6)
    export_encoder(source.checkpoint.model, tmp_path / "float32.onnx")
    feeds = encoder_feeds(source.documents.sample(2))
    with pytest.raises(BuildError, match=r"present\.0\.encoder\.value reaches .* build fp32"):
        convert_to_half(tmp_path / "float32.onnx", tmp_path / "half.onnx", feeds)


def products_of(folder: Path) -> set[str]:
    return {
        f"{name}:{product.node}"
        for name in GRAPH_FILES
        for product in weight_products(onnx.load(folder / name))
    }


def write_file(path: Path, texts: list[str]) -> Path:
    lines = [json.dumps({"dialogue": text, "summary": text[:9]}) for text in texts]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def documents_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = ["어제 회의에서 출시 일정을 확정했습니다", "시험은 금요일까지 마치기로", "내일 비가"]
    return write_file(tmp_path_factory.mktemp("documents") / "some.jsonl", texts)


@pytest.fixture(scope="module")
def tiny(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint()


def exported_and_calibrated(
    checkpoint: Path, documents_file: Path, folder: Path
) -> tuple[Source, Scales]:
    config = BuildConfig(
        checkpoint=str(checkpoint), precision="int8", calibration_data=str(documents_file)
    )
    source, _ = load_source(config)
    assert source.documents
    export(source, folder)
    return source, calibrate(folder, source.shape, source.documents, method="minmax")


def test_products_are_ranked_by_how_much_they_move_the_answers(
    tiny: Path, documents_file: Path, tmp_path: Path
) -> None:
    """One activation's scale is far too large, so its product must come first."""
    source, scales = exported_and_calibrated(tiny, documents_file, tmp_path)
    assert source.documents
    head = weight_products(onnx.load(tmp_path / DECODER_FILE))[-1]
    scales.scales[DECODER_FILE][head.activation] *= 100
    ranked = rank(tmp_path, source.shape, scales, source.documents)
    assert ranked[0] == f"{DECODER_FILE}:{head.node}"
    assert set(ranked) == products_of(tmp_path)

    def write(_: Scales, excluded: tuple[str, ...]) -> float:
        return 0.5 + 0.2 * len(excluded)

    left = leave_out(tmp_path, source.shape, scales, source.documents, write, aim=0.9)
    first = next(name for name in ranked if third_is_not_passed(tmp_path, (name,)))
    second = next(
        name
        for name in ranked[ranked.index(first) + 1 :]
        if third_is_not_passed(tmp_path, (first, name))
    )
    assert left == (first, second)


def test_the_greater_part_of_the_weights_becomes_int8(
    tiny: Path, documents_file: Path, tmp_path: Path
) -> None:
    source, scales = exported_and_calibrated(tiny, documents_file, tmp_path)
    assert source.documents
    left = leave_out(tmp_path, source.shape, scales, source.documents, lambda *_: 0.0, aim=0.9)
    assert left
    assert third_is_not_passed(tmp_path, left)


def third_is_not_passed(folder: Path, left: tuple[str, ...]) -> bool:
    graphs = [weight_sizes(folder / graph) for graph in GRAPH_FILES]
    return all(
        sum(sizes.get(name, 0) for name in left) <= sum(sizes.values()) / 3 for sizes in graphs
    )


def weight_sizes(path: Path) -> dict[str, int]:
    model = onnx.load(path)
    dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    products = weight_products(model)
    return {f"{path.name}:{each.node}": int(np.prod(dims[each.weight])) for each in products}


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def int8_build(tiny: Path, documents_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forced: random weights of a few dozen channels need not pass any gate."""
    return build(
        BuildConfig(
            checkpoint=str(tiny),
            precision="int8",
            calibration_data=str(documents_file),
            output=str(tmp_path_factory.mktemp("int8") / "build"),
            runtime="onnxruntime",
            encoder_engine="onnxruntime",
            cross_kv="int8",
            force=True,
        )
    )


def test_an_int8_build_has_the_portable_graphs_and_their_scales(
    int8_build: Path, documents_file: Path
) -> None:
    manifest, front = manifest_of(int8_build), int8_build / "kobart/1"
    conversion = manifest["conversion"]
    assert conversion["portable"] == ["encoder.qdq.onnx", "decoder.qdq.onnx", "scales.json"]
    for name in ("encoder.onnx", "decoder.onnx", "tokenizer.json", *conversion["portable"]):
        assert manifest["artefacts"][name] == sha256_of(front / name)
    assert conversion["documents"] == sha256_of(documents_file)
    assert manifest["built"]["precision"] == "int8"
    assert manifest["built"]["quantization"] == conversion["kind"]
    assert read_back(front / "encoder.qdq.onnx").quantization == "qdq"
    assert set(conversion["agreements"]) == {"qdq", conversion["kind"]}
    assert conversion["batch_ms"] == {}  # nothing was timed
    assert conversion["reason"].startswith("rule: ")
    assert [path.name for path in int8_build.iterdir() if path.name.startswith(".")] == []
    assert {path.name for path in int8_build.iterdir()} == {
        "kobart", "kobart_encoder", "kobart_decoder", "manifest.json",
    }  # fmt: skip


@pytest.mark.parametrize("name", CROSS_INT8_FILES)
def test_the_front_model_checks_the_graphs_that_it_runs(
    int8_build: Path, tmp_path: Path, name: str
) -> None:
    front = Path(shutil.copytree(int8_build / "kobart/1", tmp_path / "front"))
    SummarizationService.open(front).close()
    path = front / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BuildError, match=rf"{path} is corrupt: sha256"):
        SummarizationService.open(front)


def test_an_fp16_build_says_so_everywhere(tiny: Path, documents_file: Path, tmp_path: Path) -> None:
    output = build(
        BuildConfig(
            checkpoint=str(tiny),
            precision="fp16",
            calibration_data=str(documents_file),
            output=str(tmp_path / "build"),
            force=True,
        )
    )
    manifest = manifest_of(output)
    assert manifest["built"]["precision"] == "fp16"
    assert manifest["conversion"]["kind"] == "float16"
    assert manifest["verification"]["agreement_tokens"] > 0
    encoder = (output / "kobart_encoder/config.pbtxt").read_text(encoding="utf-8")
    assert encoder.count("TYPE_FP16") == 4
    decoder = (output / "kobart_decoder/config.pbtxt").read_text(encoding="utf-8")
    assert decoder.count("TYPE_FP16") == 12
    assert decoder.count("TYPE_FP32") == 2  # logits and candidates


def test_documents_are_asked_for_where_there_are_none(tiny: Path, tmp_path: Path) -> None:
    config = BuildConfig(checkpoint=str(tiny), precision="fp16", output=str(tmp_path / "build"))
    with pytest.raises(ConfigError, match=r"ships no dev\.jsonl: give --calibration-data"):
        build(config)
    assert list(tmp_path.iterdir()) == []


def test_documents_are_read_before_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong-file.csv"
    wrong.write_text("id,value\n1,2\n", encoding="utf-8")
    for path, message in (
        (wrong, "has no column named dialogue, document, text, news or article"),
        (tmp_path / "none.csv", r"none\.csv cannot be read: No such file or directory"),
    ):
        config = BuildConfig(
            checkpoint=str(tmp_path / "nowhere"),
            precision="int8",
            runtime="onnxruntime",
            calibration_data=str(path),
            output=str(tmp_path / "build"),
        )
        with pytest.raises(DocumentError, match=message):
            build(config)


def test_columns_and_encoding_of_calibration_data(
    tiny: Path, documents_file: Path, tmp_path: Path
) -> None:
    table = tmp_path / "data.csv"
    pairs = read_pairs(documents_file).pairs
    with table.open("w", encoding="cp949", newline="") as file:
        rows = [("본문", "한줄"), *((pair.text, pair.summary) for pair in pairs)]
        csv.writer(file).writerows(rows)
    options: dict[str, Any] = {"checkpoint": str(tiny), "precision": "int8"}
    plain, _ = load_source(BuildConfig(**options, calibration_data=str(documents_file)))
    columns: dict[str, Any] = {"text_column": "본문", "summary_column": "한줄", "encoding": "cp949"}
    read, _ = load_source(BuildConfig(**options, **columns, calibration_data=str(table)))
    assert read.documents
    assert plain.documents
    assert read.documents.documents == plain.documents.documents


def test_a_build_below_its_gate_is_not_delivered(
    mini: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(self: Int8Maker) -> Scales:
        assert mini.documents
        found = calibrate(self.source, self.shape, mini.documents.sample(4), method="minmax")
        spoilt = {
            name: {tensor: scale / 16 for tensor, scale in values.items()}
            for name, values in found.scales.items()
        }
        return replace(found, scales=spoilt)

    monkeypatch.setattr(Int8Maker, "calibrate", spoil)
    monkeypatch.setattr("builders.precision.INT8_AIM", 0.0)  # nothing is left out
    config = BuildConfig(
        checkpoint=str(MINI_CHECKPOINT), precision="int8", output=str(tmp_path / "build")
    )
    with pytest.raises(BuildError, match=r"by the portable graphs .* --force delivers"):
        build(config)
    assert list(tmp_path.iterdir()) == []
