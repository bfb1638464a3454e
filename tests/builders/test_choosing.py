"""What an int8 build takes where nothing was asked for: rules or the clock, and the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.choosing import Choice, cross_kv, dynamic_kind, encoder_engine, fastest, settle
from builders.processor import Processor

AVX2 = Processor(name="AMD EPYC", flags=("avx2",))
VNNI = Processor(name="Intel Xeon", flags=("avx2", "avx512f", "avx512_vnni"))
AVX_VNNI = Processor(name="Intel Core", flags=("avx2", "avx_vnni"))
AMX = Processor(name="Intel Xeon", flags=("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16"))
OTHER = Processor(name="aarch64", flags=())


@pytest.mark.parametrize(
    ("processor", "kind", "encoder", "kept"),
    [
        (AVX2, "dynamic-unsigned", "onnxruntime", "float"),
        (VNNI, "dynamic", "onnxruntime", "float"),
        (AVX_VNNI, "dynamic", "onnxruntime", "float"),
        (AMX, "dynamic", "openvino", "int8"),
        (OTHER, "dynamic-unsigned", "onnxruntime", "float"),
    ],
)
def test_rules_go_by_the_processor(
    processor: Processor, kind: str, encoder: str, kept: str
) -> None:
    choices = (
        dynamic_kind(processor),
        encoder_engine(processor, has_openvino=True),
        cross_kv(processor),
    )
    assert [choice.taken for choice in choices] == [kind, encoder, kept]
    assert all(choice.reason.startswith("rule: ") for choice in choices)
    assert not any(choice.fell_back for choice in choices)


def test_amx_without_openvino_says_what_to_install() -> None:
    choice = encoder_engine(AMX, has_openvino=False)
    assert choice.taken == "onnxruntime"
    assert "pip install openvino" in choice.reason


def test_where_int8_keys_and_values_were_not_measured_the_reason_says_so() -> None:
    for processor in (AVX2, VNNI):
        assert "measured on processors with AMX alone" in cross_kv(processor).reason


RULE = Choice(taken="int8", reason="rule: it is so")
FLOAT_RULE = Choice(taken="float", reason="rule: it is not")
SLOWER, FASTER = {"float": 2.0, "int8": 3.0}, {"float": 2.0, "int8": 1.0}
BELOW = "int8 agrees on 96.99% of the tokens, gate 97.0%: float instead"


@pytest.mark.parametrize(
    ("asked", "agreement", "rule", "times", "taken", "reason"),
    [
        ("auto", 1.0, RULE, {}, "int8", "rule: it is so"),
        ("auto", 0.97, RULE, {}, "int8", "rule: it is so"),
        ("auto", 0.9699, RULE, {}, "float", BELOW),
        ("auto", 0.5, FLOAT_RULE, {}, "float", "rule: it is not"),
        ("auto", 1.0, FLOAT_RULE, FASTER, "int8", "tune: float 2.0 ms, int8 1.0 ms a step"),
        ("auto", 1.0, RULE, SLOWER, "float", "tune: float 2.0 ms, int8 3.0 ms a step"),
        ("auto", 0.9699, FLOAT_RULE, FASTER, "float", BELOW),
        ("int8", 0.5, FLOAT_RULE, SLOWER, "int8", "as asked"),
    ],
)
def test_what_was_asked_for_then_the_clock_then_the_rule_and_the_gate_over_the_last_two(
    asked: str, agreement: float, rule: Choice, times: dict[str, float], taken: str, reason: str
) -> None:
    choice = settle(asked, rule, times, "step", agreement, 0.97, default="float")
    assert (choice.taken, choice.reason) == (taken, reason)
    assert choice.fell_back is (reason == BELOW)


def test_random_weights_are_not_judged() -> None:
    assert settle("auto", RULE, {}, "step", 0.1, 0.0, default="float") == RULE


def test_the_fastest_is_taken_with_all_times_as_the_reason() -> None:
    choice = fastest({"a": 2.0, "b": 1.5, "c": 3.0}, "batch")
    assert choice == Choice(taken="b", reason="tune: a 2.0 ms, b 1.5 ms, c 3.0 ms a batch")


CPUINFO = """\
processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_bf16 amx_tile amx_int8

processor\t: 1
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu sse2
"""


def test_the_processor_is_read_as_linux_describes_it(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO, encoding="utf-8")
    processor = Processor.read(path)
    assert processor.name == "Intel(R) Xeon(R) Platinum 8480+"
    assert processor.flags == ("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16")
    assert processor.has_amx
    assert processor.has_vnni


@pytest.mark.parametrize("text", [None, "", "processor : 0\nFeatures : fp asimd asimddp\n"])
def test_of_another_processor_nothing_is_assumed(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    processor = Processor.read(path)
    assert processor.name
    assert processor.flags == ()
    assert not processor.has_amx
    assert not processor.has_vnni
