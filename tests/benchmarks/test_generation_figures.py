"""What engines must do at least, where the time goes, and which option is the fastest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.contestants import BuildContestant, CTranslate2Contestant, TorchContestant
from benchmarks.decoding import Case
from benchmarks.engine_work import Weights, Work, encode_work, step_work
from benchmarks.generation_cases import TOO_SLOW_S, Measured, Timed, best_ratio, fastest
from benchmarks.generation_limits import shares
from benchmarks.generation_plots import growth_plot
from benchmarks.generation_setup import Option, System, has_bfloat16
from benchmarks.generation_shares import split, step_ms
from benchmarks.machine_limits import bandwidth_gb_s, operations_gop_s
from kobart_runtime.host_kv_cache import HostKvCache
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig, ModelShape, TokenIds

IDS = TokenIds(bos=1, eos=(1,), pad=3, decoder_start=1)
SHAPE = ModelShape(num_decoder_layers=2, num_heads=4, head_dim=8, vocab_size=100, num_candidates=8)
LIMITS = {
    "gb_s": {"copy": 10.0, "read": 20.0},
    "gop_s": {"MatMul": 100.0, "MatMulInteger": 150.0, "DynamicQuantizeMatMul": 200.0},
}


def test_weights_of_kobart_mini(mini_build: Path) -> None:
    """Counted by hand: projections, feed-forward layers, cross-attention K/V and the head."""
    config = ModelConfig.from_manifest(mini_build / MANIFEST_NAME)
    folder = mini_build / config.name / "1"
    encoder, decoder = (Weights.read(folder / f"{role}.onnx") for role in ("encoder", "decoder"))
    width, inner, vocab = 192, 768, config.shape.vocab_size
    layers = config.shape.num_decoder_layers
    cross = 2 * layers * width**2
    assert encoder.num_values == encoder.num_attentions * (4 * width**2 + 2 * width * inner) + cross
    assert decoder.num_values == layers * (6 * width**2 + 2 * width * inner) + width * vocab
    assert decoder.num_bytes == 4 * decoder.num_values


@pytest.mark.parametrize("form", ["MatMulInteger", "DequantizeLinear"])
def test_int8_weights_are_found_and_embeddings_are_not(form: str) -> None:
    weights = numpy_helper.from_array(np.zeros((6, 4), np.int8), "weights")
    embeddings = numpy_helper.from_array(np.zeros((9, 6), np.float32), "embeddings")
    scale = numpy_helper.from_array(np.ones(1, np.float32), "scale")
    product = (
        [helper.make_node("MatMulInteger", ["rows", "weights"], ["y"])]
        if form == "MatMulInteger"
        else [
            helper.make_node("DequantizeLinear", ["weights", "scale"], ["floats"]),
            helper.make_node("MatMul", ["rows", "floats"], ["y"]),
        ]
    )
    nodes = [helper.make_node("Gather", ["embeddings", "ids"], ["rows"]), *product]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [], [output], [weights, embeddings, scale])
    found = Weights.of(onnx.helper.make_model(graph))
    assert found == Weights(num_bytes=24, num_values=24, num_attentions=0)


def test_work_of_a_step_and_of_encode() -> None:
    weights = Weights(num_bytes=400, num_values=100, num_attentions=3)
    cache = HostKvCache(SHAPE, np.float32, 0, 0, 0)
    sizes = {"num_slots": 2, "num_beams": 3, "source_len": 10, "num_entries": 5}
    step = step_work(weights, SHAPE, cache, **sizes)
    assert step.num_bytes == 400 + 2 * 15 * 2 * 2 * 32 * 4  # layers, keys and values, bytes
    assert step.weight_operations == 2 * 6 * 100
    assert step.attention_operations == 2 * 2 * 2 * 6 * 15 * 32  # layers, products, 2 a number
    in_bytes = step_work(weights, SHAPE, HostKvCache(SHAPE, np.float32, 0, 0, 0, np.uint8), **sizes)
    assert in_bytes.num_bytes == 400 + 2 * (5 * 4 + 10) * 2 * 2 * 32
    assert in_bytes.attention_operations == 2 * 2 * 2 * 6 * 5 * 32
    assert in_bytes.num_operations == step.num_operations
    encode = encode_work(weights, SHAPE, 2, 10)
    assert encode.num_bytes == 400
    assert encode.weight_operations == 2 * 20 * 100
    assert encode.attention_operations == 3 * 2 * 2 * 20 * 10 * 32


@pytest.mark.parametrize(("precision", "arithmetic"), [("fp32", 0.3), ("int8", 0.2)])
def test_shares_of_the_limits(precision: str, arithmetic: float) -> None:
    work = Work(
        num_bytes=10_000_000, weight_operations=200_000_000, attention_operations=100_000_000
    )
    found = shares(work, 0.01, LIMITS, precision)
    assert found["bandwidth_share"] == pytest.approx(0.05)
    assert found["arithmetic_share"] == pytest.approx(arithmetic)
    assert (found["mb"], found["gop"], found["ms"]) == pytest.approx((10, 0.3, 10))


def test_the_machine_is_measured() -> None:
    bandwidth = bandwidth_gb_s(array_mb=4, num_calls=2, num_threads=2)
    assert set(bandwidth) == {"copy", "triad", "read"}
    assert all(0.1 < speed < 10_000 for speed in bandwidth.values())
    assert set(operations_gop_s(32, 2)) == set(LIMITS["gop_s"])


def test_where_the_time_goes() -> None:
    calls = [
        ("encode", 0.0, 2.0),
        ("decode step", 3.0, 5.0),
        ("decode step", 6.0, 9.0),
        ("decode step", 9.5, 10.0),
    ]
    found = split(calls, {"feed-forward": 30, "attention products": 10, "layer norms": 15})
    assert found == pytest.approx(
        {
            "encode": 0.2,
            "attention": 0.1,
            "feed-forward": 0.3,
            "head": 0,
            "other": 0.15,
            "host": 0.25,
        }
    )
    assert step_ms(calls) == pytest.approx((2000, 750))


def contestant(inter: int, intra: int) -> CTranslate2Contestant:
    return CTranslate2Contestant(
        name="", folder=Path(), ids=IDS, compute_type="int8", inter_threads=inter,
        intra_threads=intra,
    )  # fmt: skip


def test_peers_have_settings_to_try() -> None:
    peer = System(
        name="", precision="int8", is_ours=False, contestants=(contestant(1, 2), contestant(2, 1))
    )
    assert [option.name for option in peer.options(8)] == [
        "1 x 2 threads, whole batch",
        "1 x 2 threads, batches of 1",
        "2 x 1 threads, batches of 4",
        "2 x 1 threads, batches of 1",
    ]
    assert [option.max_batch_size for option in peer.options(1)] == [None, None]
    torch = TorchContestant(name="", checkpoint="", ids=IDS)
    build = BuildContestant(name="", path=Path())
    for one, sizes in ((torch, [None, 1]), (build, [None])):
        system = System(name="", precision="fp32", is_ours=False, contestants=(one,))
        assert [option.max_batch_size for option in system.options(8)] == sizes


def measured(name: str, precision: str, *rates: float, seconds: float = 1.0) -> Measured:
    build = BuildContestant(name=name, path=Path())
    is_ours = name == "ours"
    system = System(name=name, precision=precision, is_ours=is_ours, contestants=(build,))
    trial = Timed(seconds, [[1, 2], [3, 4]])
    return Measured(system, Option(build, None), trial, {}, list(rates))


def test_the_bar_is_against_the_fastest_peer_of_any_precision() -> None:
    found = [
        measured("slow", "int8", 10, 12),
        measured("fast", "fp32", 20, 22),
        measured("ours", "fp32", 90, 90),
        measured("ours", "int8", 40, 44),
    ]
    bar = best_ratio("case", found, 2.0)
    assert bar.name == "case: int8 / fast"
    assert (bar.median, bar.is_reached) == (2.0, True)
    assert fastest(found, "int8").system.name == "slow"


def test_a_slow_system_says_that_it_ran_once() -> None:
    case = Case(num_beams=1)
    slow = measured("slow", "bf16", 2.0, seconds=TOO_SLOW_S + 1)
    other = measured("other", "fp32", 2.0, 3.0)
    other.trial.ids[1][0] = 9
    assert slow.row(case, slow)["note"] == "one run, of 61 s: over the 60 s allowed"
    row = other.row(case, slow)
    assert (row["note"], row["identical_share"], row["best"]) == ("", 0.75, 3.0)


def test_growth_is_drawn_with_its_spread() -> None:
    rate = {"median": 2.0, "low": 1.0, "high": 3.0}
    rows = [
        {"axis": "beams", "value": beams, "system": name, "tokens_per_s": rate}
        for beams in (1, 2)
        for name in ("a", "b")
    ]
    plot = growth_plot({"rows": [*rows, {**rows[0], "axis": "source"}]}, "beams")
    assert [(each.label, each.x, each.low) for each in plot.series] == [
        ("a", (1.0, 2.0), (1.0, 1.0)),
        ("b", (1.0, 2.0), (1.0, 1.0)),
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("avx2", False), ("avx2 avx512f avx512_vnni", False), ("avx2 avx512_bf16", True),
     ("avx2 avx512f amx_bf16", True)],
)  # fmt: skip
def test_bfloat16_is_measured_where_the_cpu_has_it(flags: str, expected: bool) -> None:
    assert has_bfloat16(flags) is expected
