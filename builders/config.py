"""The options of a build: one dataclass behind the flags and the YAML file.

Each field is a flag (`max_beams` = `--max-beams`) and a YAML key; its default, help and choices
are written here alone.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from builders.paths import DEFAULT_CHECKPOINT
from builders.plan_facts import MAX_OPTIMIZATION_LEVEL
from builders.prune_steps import PruneStep, parse_steps
from kobart_documents import ReadOptions
from kobart_documents.encodings import check_encoding
from kobart_documents.options import ENCODING_HELP, SUMMARY_COLUMN_HELP, TEXT_COLUMN_HELP
from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import TokenizerConfig
from kobart_runtime.settings import Limits

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _option(
    default: Any, kind: type, text: str, *, metavar: str = "N", choices: tuple[str, ...] = ()
) -> Any:
    metadata = {"kind": kind, "help": text, "metavar": metavar, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build, from what, and what the build will accept."""

    checkpoint: str = _option(
        DEFAULT_CHECKPOINT,
        str,
        "folder or hub id of a BartForConditionalGeneration, or kobart-base-random: the full "
        "size with seeded random weights, for speed measurements",
        metavar="DIR_OR_HUB_ID",
    )
    tokenizer: str | None = _option(
        None,
        str,
        "a tokenizer.json, or a folder with one, in the place of the checkpoint's own",
        metavar="FILE_OR_DIR",
    )
    adapter: str | None = _option(
        None,
        str,
        "folder of a LoRA or another peft adapter, which is merged into the checkpoint's weights",
        metavar="DIR",
    )
    precision: str = _option(
        "fp32",
        str,
        "of the engines: fp16 keeps float32 where it is needed, int8 is calibrated on documents",
        choices=("fp32", "fp16", "int8"),
    )
    runtime: str = _option(
        "auto",
        str,
        "what runs the engines; auto takes tensorrt where it and a GPU are, else onnxruntime; "
        "torchscript is plain PyTorch on the CPU, fp32 alone",
        choices=("auto", "tensorrt", "onnxruntime", "torchscript"),
    )
    encoder_engine: str = _option(
        "auto",
        str,
        "int8 with runtime onnxruntime: what runs the encoder; auto takes OpenVINO where the "
        "processor has AMX, OpenVINO is installed and the accuracy gate is passed",
        choices=("auto", "onnxruntime", "openvino"),
    )
    cross_kv: str = _option(
        "auto",
        str,
        "int8 with runtime onnxruntime: how cross-attention keys and values are kept; auto takes "
        "int8 where the processor has AMX and the accuracy gate is passed",
        choices=("auto", "float", "int8"),
    )
    tune: bool = _option(
        False,
        bool,
        "int8 with runtime onnxruntime: time what is left to auto, and the kinds of int8 products, "
        "on this machine and take the fastest that pass the gate; two such builds may differ",
    )
    prepare: bool = _option(
        False,
        bool,
        "TensorRT: write graphs, optimization profiles and manifest for another machine, which "
        "makes plans of them by python -m builders.build_plans; needs no GPU and no TensorRT",
    )
    output: str | None = _option(
        None,
        str,
        "folder of the build, replaced only with --force (default: build/MODEL_NAME-PRECISION)",
        metavar="DIR",
    )
    calibration_data: str | None = _option(
        None,
        str,
        "documents with their summaries that fp16 and int8 are fitted to and compared with PyTorch "
        "on: .jsonl, .csv, .tsv or .parquet (default: dev.jsonl beside the checkpoint)",
        metavar="FILE",
    )
    text_column: str | None = _option(
        None, str, f"--calibration-data: {TEXT_COLUMN_HELP}", metavar="NAME"
    )
    summary_column: str | None = _option(
        None, str, f"--calibration-data: {SUMMARY_COLUMN_HELP}", metavar="NAME"
    )
    encoding: str | None = _option(
        None, str, f"--calibration-data: {ENCODING_HELP}", metavar="NAME"
    )
    model_name: str = _option(
        "kobart",
        str,
        "name of the front model; its engines are NAME_encoder and NAME_decoder",
        metavar="NAME",
    )
    prune: Sequence[str] | None = _option(
        None,
        tuple,
        "prune before the export; may be repeated, in the order given: magnitude=0.3 or global=0.4 "
        "(that share of weights becomes 0), structured=0.2 (that share of feed-forward neurons and "
        "whole attention heads goes), layers=encoder:4,decoder:3 (that many stay), 2:4 (2 of 4 "
        "neighbours become 0)",
        metavar="STEP",
    )
    prune_layers: Sequence[str] | None = _option(
        None,
        tuple,
        "prune these layers alone; may be repeated: exact names, bare names such as fc1, or globs "
        "such as model.decoder.layers.*.fc1 (default: every Linear of encoder and decoder)",
        metavar="GLOB",
    )
    max_queue_size: int = _option(
        Limits.max_queue_size, int, "waiting requests; one more is refused at once"
    )
    max_request_seconds: float = _option(
        Limits.max_request_seconds, float, "from arrival to the last response", metavar="SECONDS"
    )
    max_input_bytes: int = _option(Limits.max_input_bytes, int, "UTF-8 bytes of one text")
    max_batch_size: int = _option(Limits.max_batch_size, int, "requests decoded together")
    max_cache_mib: int | None = _option(
        Limits.max_cache_mib,
        int,
        "memory for keys and values of the requests decoded together; others wait (default: half "
        "of what is free where and when the model is loaded)",
        metavar="MIB",
    )
    max_source_length: int | None = _option(
        None,
        int,
        "source tokens; longer sources are truncated "
        f"(default: {Limits.max_source_length}, or the model's positions if fewer)",
    )
    max_target_length: int | None = _option(
        None,
        int,
        "generated tokens a request may ask for "
        f"(default: {Limits.max_target_length}, or the model's positions if fewer)",
    )
    max_beams: int = _option(Limits.max_beams, int, "beams a request may ask for")
    decoder_start_token_id: int | None = _option(
        None, int, "first decoder token (default: the checkpoint's)", metavar="ID"
    )
    forced_eos_token_id: int | None = _option(
        None, int, "last token at the length limit (default: the checkpoint's)", metavar="ID"
    )
    add_bos: bool = _option(TokenizerConfig.add_bos, bool, "put bos before the source tokens")
    add_eos: bool = _option(TokenizerConfig.add_eos, bool, "put eos after the source tokens")
    newline: str = _option(
        TokenizerConfig.newline,
        str,
        "newlines of the text: kept, or each one replaced by a space (as many trainers do)",
        choices=("keep", "space"),
    )
    int8_calibrator: str = _option(
        "qdq",
        str,
        "TensorRT: where int8 scales come from: qdq puts calibrated ones into the graph, for every "
        "version; tensorrt leaves it to TensorRT's own IInt8EntropyCalibrator2 (8.6 and 10)",
        choices=("qdq", "tensorrt"),
    )
    workspace_mib: int | None = _option(
        None,
        int,
        "TensorRT: scratch memory that a layer may use (default: as much as it wants)",
        metavar="MIB",
    )
    optimization_level: int = _option(
        3, int, "TensorRT: 0 builds fastest, 5 looks longest for the fastest kernels"
    )
    version_compatible: bool = _option(
        False, bool, "TensorRT: plans that later versions of TensorRT run too"
    )
    hardware_compatible: bool = _option(
        False, bool, "TensorRT: plans that run on every GPU since Ampere, more slowly"
    )
    force: bool = _option(
        False, bool, "replace an existing build, and deliver one that failed its accuracy gate"
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            _check_choice(option.name, getattr(self, option.name), option.metadata["choices"])
        if self.calibration_data and self.precision == "fp32":
            raise ConfigError(
                "calibration_data is for precision fp16 or int8, got fp32: leave it out, or ask "
                "for one of them"
            )
        for name in ("text_column", "summary_column", "encoding"):
            if getattr(self, name) is not None and not self.calibration_data:
                raise ConfigError(f"{name} is of calibration_data: name that file, or leave it out")
        if self.runtime == "torchscript" and self.precision != "fp32":
            raise ConfigError(
                f"runtime torchscript is for precision fp32, got {self.precision}: on CPUs "
                "PyTorch's float16 is no faster than its float32, and int8 graphs are ONNX; "
                f"ask for --runtime onnxruntime or tensorrt with --precision {self.precision}"
            )
        if self.tune and not (self.precision == "int8" and self.runtime in ("auto", "onnxruntime")):
            raise ConfigError(
                "tune is for precision int8 and runtime auto or onnxruntime, "
                f"got {self.precision} and {self.runtime}: ask for those, or leave tune out"
            )
        for name, value, runtime in (
            ("encoder_engine", "openvino", "onnxruntime"),
            ("cross_kv", "int8", "onnxruntime"),
            ("int8_calibrator", "tensorrt", "tensorrt"),
        ):
            is_asked = getattr(self, name) == value
            if is_asked and (self.precision, self.runtime) != ("int8", runtime):
                raise ConfigError(
                    f"{name} {value} is for precision int8 and runtime {runtime}, "
                    f"got {self.precision} and {self.runtime}: ask for those, or leave {name} out"
                )
        if self.prepare and (self.runtime != "tensorrt" or self.calibrated_by_tensorrt):
            raise ConfigError(
                "prepare is for runtime tensorrt with int8_calibrator qdq, got "
                f"{self.runtime} and {self.int8_calibrator}: ask for those, or leave prepare out"
            )
        parse_steps(self.prune or (), self.prune_layers or ())
        if not MODEL_NAME.fullmatch(self.model_name):
            raise ConfigError(
                "model_name must be 1..100 letters, digits, '.', '_' or '-' and begin with a "
                f"letter or digit, got {self.model_name!r}"
            )
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ConfigError(
                f"workspace_mib must be above 0, got {self.workspace_mib}: leave it out for none"
            )
        if not 0 <= self.optimization_level <= MAX_OPTIMIZATION_LEVEL:
            raise ConfigError(
                f"optimization_level must be 0..{MAX_OPTIMIZATION_LEVEL}, "
                f"got {self.optimization_level}"
            )
        if not math.isfinite(self.max_request_seconds):
            raise ConfigError(
                f"max_request_seconds must be a finite number, got {self.max_request_seconds}"
            )
        self.limits(Limits.max_source_length, Limits.max_target_length)
        if self.encoding is not None:
            check_encoding(self.encoding)

    def limits(self, max_source_length: int, max_target_length: int) -> Limits:
        """The build's limits; the two lengths stand in where none was asked for.

        Raises:
            ConfigError: A limit is not above 0.
        """
        given = {limit.name: getattr(self, limit.name) for limit in fields(Limits)}
        if self.max_source_length is None:
            given["max_source_length"] = max_source_length
        if self.max_target_length is None:
            given["max_target_length"] = max_target_length
        return Limits(**given)

    @property
    def reading(self) -> ReadOptions:
        """How `calibration_data` is read."""
        return ReadOptions(
            text_column=self.text_column,
            summary_column=self.summary_column,
            encoding=self.encoding,
        )

    @property
    def calibrated_by_tensorrt(self) -> bool:
        """Whether the plans are made from float32 graphs, which TensorRT calibrates itself."""
        return self.int8_calibrator == "tensorrt"

    @property
    def graph_precision(self) -> str:
        """Of the graphs that the plans are made from."""
        return "fp32" if self.calibrated_by_tensorrt else self.precision

    @property
    def prune_steps(self) -> tuple[PruneStep, ...]:
        """What to prune before the export, in this order."""
        return parse_steps(self.prune or (), self.prune_layers or ())

    @property
    def text_to_ids(self) -> TokenizerConfig:
        """How the build's text becomes source ids."""
        return TokenizerConfig(add_bos=self.add_bos, add_eos=self.add_eos, newline=self.newline)

    @property
    def output_folder(self) -> Path:
        """Absolute path of the build."""
        default = f"build/{self.model_name}-{self.precision}"
        return Path(self.output or default).resolve()


OPTIONS = {option.name: option for option in fields(BuildConfig)}


def read_yaml(path: Path) -> dict[str, Any]:
    """Options from a YAML file; keys are the flags' names, with `-` or `_`.

    Raises:
        ConfigError: The file cannot be read, is no mapping, or has an unknown key or a value of
            the wrong type.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"--config {path} must hold `option: value` lines, got {loaded!r}")
    return dict(_check_option(path, str(key), value) for key, value in loaded.items())


def _check_option(path: Path, key: str, value: object) -> tuple[str, object]:
    name = key.replace("-", "_")
    if name not in OPTIONS:
        raise ConfigError(f"{path}: unknown option {key!r}{_near(name)}")
    kind = OPTIONS[name].metadata["kind"]
    if kind is tuple:
        return name, _check_texts(path, key, value)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path}: {key} must be a {kind.__name__}, got {value!r}")
    return name, value


def _check_texts(path: Path, key: str, value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str):
            # YAML 1.1 reads a bare 2:4 as a number of base 60.
            raise ConfigError(
                f"{path}: {key} must be text or a list of texts, in quotes, got {text!r}"
            )
    return tuple(texts)


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, OPTIONS, n=3)
    named = [option.replace("_", "-") for option in near or OPTIONS]
    return f"; did you mean {', '.join(named)}?" if near else f"; valid are {', '.join(named)}"


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if choices and value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
