"""Options: flags, the YAML file, and what is refused before any work is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders.build_all import build_parser, main
from builders.config import OPTIONS, BuildConfig, read_yaml
from builders.fit import fit_limits
from builders.runtime_choice import find_gpu, missing_packages
from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import TokenizerConfig
from kobart_runtime.settings import Limits
from tests.conftest import REPOSITORY

FLAGS = {
    "--checkpoint", "--tokenizer", "--adapter",
    "--precision", "--runtime", "--output", "--model-name", "--max-queue-size",
    "--max-request-seconds", "--max-input-bytes", "--max-batch-size", "--max-source-length",
    "--max-cache-mib",
    "--max-target-length", "--max-beams", "--config", "--force", "--decoder-start-token-id",
    "--forced-eos-token-id", "--add-bos", "--no-add-bos", "--add-eos", "--no-add-eos",
    "--newline", "--calibration-data", "--prune", "--prune-layers", "--help", "-h",
    "--workspace-mib", "--optimization-level", "--version-compatible", "--no-version-compatible",
    "--hardware-compatible", "--no-hardware-compatible", "--int8-calibrator",
    "--encoder-engine", "--cross-kv", "--text-column", "--summary-column", "--encoding",
    "--tune", "--no-tune", "--prepare", "--no-prepare",
}  # fmt: skip


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "build.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_flags_are_those_of_this_version() -> None:
    assert set(build_parser()._option_string_actions) == FLAGS


def test_defaults_are_the_runtimes_own() -> None:
    config = BuildConfig()
    assert config.limits(Limits.max_source_length, Limits.max_target_length) == Limits()
    assert config.text_to_ids == TokenizerConfig()
    assert config.output_folder == Path.cwd() / "build" / "kobart-fp32"


def test_flags_given_are_the_only_ones_parsed() -> None:
    parsed = build_parser().parse_args(["--max-beams", "4", "--no-add-eos"])
    assert vars(parsed) == {"max_beams": 4, "add_eos": False}


def test_yaml_keys_are_the_flags_names(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "max-beams: 4\nmax_request_seconds: 60\nadd-bos: true\n")
    assert read_yaml(path) == {"max_beams": 4, "max_request_seconds": 60, "add_bos": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-beam: 4", "unknown option 'max-beam'; did you mean max-beams"),
        (
            "surplus: 4",
            "unknown option 'surplus'; valid are checkpoint, tokenizer, adapter",
        ),
        ("max-beams: four", "max-beams must be a int, got 'four'"),
        ("max-beams: true", "max-beams must be a int, got True"),
        ("max-beams: 4.0", "max-beams must be a int, got 4.0"),
        ("add-bos: 1", "add-bos must be a bool, got 1"),
        ("model-name:", "model-name must be a str, got None"),
        ("- max-beams", "must hold `option: value` lines"),
        ("a: [", "cannot be read"),
    ],
)
def test_yaml_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_yaml(yaml_file(tmp_path, text))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_beams": 0}, "max_beams must be above 0, got 0"),
        ({"max_target_length": -1}, "max_target_length must be above 0, got -1"),
        ({"max_request_seconds": float("inf")}, "must be a finite number, got inf"),
        ({"max_request_seconds": float("nan")}, "nan"),
        ({"model_name": "a/b"}, "model_name must be .* got 'a/b'"),
        ({"model_name": ""}, "model_name must be"),
        ({"model_name": ".hidden"}, "model_name must be"),
        ({"precision": "bf16"}, "precision must be one of fp32, fp16, int8, got 'bf16'"),
        ({"calibration_data": "x.jsonl"}, "calibration_data is for precision fp16 or int8"),
        ({"text_column": "text"}, "text_column is of calibration_data: name that file"),
        ({"encoding": "cp949"}, "encoding is of calibration_data: name that file"),
        (
            {"encoding": "klingon", "calibration_data": "x.csv", "precision": "int8"},
            "encoding 'klingon' is unknown",
        ),
        ({"newline": "drop"}, "newline must be one of keep, space, got 'drop'"),
    ],
)
def test_option_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BuildConfig(**options)  # type: ignore[arg-type]


def test_flags_win_over_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = yaml_file(tmp_path, "checkpoint: /nowhere/file\nmax-beams: 0\n")
    flags = ["--checkpoint", "/nowhere/flag", "--max-beams", "2", "--output", str(tmp_path / "b")]
    assert main(["--config", str(path), *flags]) == 1
    assert "error: /nowhere/flag is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--precision", "bf16"], ["--runtime", "tvm"], ["--max-beam", "4"], ["--max-beams", "x"]],
)
def test_usage_errors_exit_by_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2


def test_help_tells_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS.values():
        assert option.default is None or f"(default: {option.default})" in shown


def test_lengths_not_asked_for_are_lowered_to_the_positions() -> None:
    limits, notes = fit_limits(BuildConfig(), max_positions=64)
    assert (limits.max_source_length, limits.max_target_length) == (64, 64)
    assert notes == (
        "max_source_length is lowered from 1024 to 64, the checkpoint's positions",
        "max_target_length is lowered from 256 to 64, the checkpoint's positions",
    )
    assert fit_limits(BuildConfig(), max_positions=1026) == (Limits(), ())


@pytest.mark.parametrize("name", ["max_source_length", "max_target_length"])
def test_lengths_asked_for_above_the_positions_are_refused(name: str) -> None:
    fit_limits(BuildConfig(**{name: 64}), max_positions=64)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"{name} must be at most 64, .* got 65"):
        fit_limits(BuildConfig(**{name: 65}), max_positions=64)  # type: ignore[arg-type]


@pytest.mark.skipif(
    find_gpu() is not None and not missing_packages(), reason="TensorRT can build here"
)
def test_the_shipped_tensorrt_configuration_is_refused_with_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = REPOSITORY / "configs" / "inference" / "tensorrt.yaml"
    assert main(["--config", str(config), "--output", str(tmp_path / "b")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: --runtime tensorrt: this machine lacks ")
    assert all(remedy in error for remedy in missing_packages())
    assert find_gpu() is not None or "NVIDIA GPU" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("precision", "runtime"),
    [("int8", "auto"), ("int8", "tensorrt"), ("fp32", "onnxruntime"), ("fp16", "onnxruntime")],
)
@pytest.mark.parametrize("asked", [{"encoder_engine": "openvino"}, {"cross_kv": "int8"}])
def test_what_is_for_int8_on_onnx_runtime_alone(
    precision: str, runtime: str, asked: dict[str, str]
) -> None:
    accepted = BuildConfig(precision="int8", runtime="onnxruntime", **asked)  # type: ignore[arg-type]
    [(name, value)] = asked.items()
    with pytest.raises(ConfigError, match=f"{name} {value} is .*, got {precision} and {runtime}"):
        replace(accepted, precision=precision, runtime=runtime)


@pytest.mark.parametrize(
    ("precision", "runtime"),
    [("fp32", "onnxruntime"), ("fp16", "auto"), ("int8", "tensorrt"), ("fp32", "torchscript")],
)
def test_only_int8_on_cpus_is_tuned(precision: str, runtime: str) -> None:
    for accepted in ("auto", "onnxruntime"):
        assert BuildConfig(precision="int8", runtime=accepted, tune=True).tune
    with pytest.raises(ConfigError, match=f"tune is for .*, got {precision} and {runtime}: ask"):
        BuildConfig(precision=precision, runtime=runtime, tune=True)
