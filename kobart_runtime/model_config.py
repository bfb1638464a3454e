"""What the runtime must know of a build: read from its `manifest.json`, checked at birth.

A manifest lies in the build's root and, the same file, beside each `model.py`. The builder
writes it (`builders/manifest.py`); this module reads the part that generation depends on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kobart_runtime.errors import BuildError, ConfigError
from kobart_runtime.settings import GenerationSettings, Limits

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = 1
ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "decoder.onnx"
ENGINE_FILES = {  # runtime -> encoder and decoder
    "onnxruntime": (ENCODER_FILE, DECODER_FILE),
    "tensorrt": ("encoder.plan", "decoder.plan"),
    "torchscript": ("encoder.pt", "decoder.pt"),
}
# What the front model opens where it keeps the sources' keys and values as int8.
CROSS_INT8_FILES = ("encoder.cross-int8.onnx", "decoder.cross-int8.onnx")
# Behind that encoder it gives the floats of the engines' contract: the engine model `_encoder`.
CROSS_FLOAT_FILE = "encoder.cross-float.onnx"
TOKENIZER_FILE = "tokenizer.json"
NEWLINE_CHOICES = ("keep", "space")


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Special ids, as the checkpoint and the build's overrides resolve them."""

    bos: int | None
    eos: tuple[int, ...]
    pad: int
    decoder_start: int
    forced_bos: int | None = None
    forced_eos: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Dimensions of the engines."""

    num_decoder_layers: int
    num_heads: int  # of the decoder's attentions
    head_dim: int
    vocab_size: int
    num_candidates: int  # K: candidates per row that the decode step returns


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What the front model computes with."""

    runtime: str  # what decodes: "onnxruntime", "tensorrt" or "torchscript"
    shape: ModelShape
    encoder_engine: str | None = None  # "openvino"; else the runtime itself encodes
    cross_kv: str = "float"  # how cross-attention K/V are kept: "float", or "int8"

    def __post_init__(self) -> None:
        if self.runtime not in ENGINE_FILES:
            raise BuildError(
                f"this build needs the {self.runtime} runtime, this version has "
                f"{', '.join(ENGINE_FILES)}"
            )
        encoders = (None, "openvino", self.runtime)
        for name, value, known in (
            ("encoder_engine", self.encoder_engine, encoders),
            ("cross_kv", self.cross_kv, ("float", "int8")),
        ):
            if value not in known:
                raise BuildError(
                    f"this build's {name} is {value!r}, this version knows "
                    f"{', '.join(str(each) for each in known if each)}: build again"
                )

    @property
    def files(self) -> tuple[str, str]:
        """The encoder's and the decoder's file."""
        return CROSS_INT8_FILES if self.cross_kv == "int8" else ENGINE_FILES[self.runtime]

    def engine_model_files(self, role: str) -> tuple[str, ...]:
        """What an engine model opens: the front model's encoder, and a decoder of float K/V.

        Args:
            role: "encoder" or "decoder".
        """
        encoder, decoder = ENGINE_FILES[self.runtime]
        if role == "decoder":
            return (decoder,)
        return (CROSS_INT8_FILES[0], CROSS_FLOAT_FILE) if self.cross_kv == "int8" else (encoder,)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How text becomes source ids."""

    add_bos: bool = False
    add_eos: bool = False
    newline: str = "keep"  # "keep", or "space": each newline becomes one space

    def __post_init__(self) -> None:
        if self.newline not in NEWLINE_CHOICES:
            raise ConfigError(
                f"newline must be one of {', '.join(NEWLINE_CHOICES)}, got {self.newline!r}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One build, as the runtime sees it."""

    name: str
    runtime: str  # "onnxruntime", "tensorrt" or "torchscript", as really built
    encoder_engine: str  # what runs the encoder: "openvino", or the runtime itself
    precision: str  # "fp32", "fp16" or "int8", as really built
    ids: TokenIds
    shape: ModelShape
    tokenizer: TokenizerConfig
    limits: Limits
    defaults: GenerationSettings
    artefacts: dict[str, str]  # file name -> sha256 of its bytes
    cross_kv: str = "float"  # how the front model keeps cross-attention K/V: "float" or "int8"

    @property
    def engines(self) -> EngineConfig:
        """What the front model computes with.

        Raises:
            BuildError: This version does not know one of them.
        """
        return EngineConfig(
            runtime=self.runtime,
            shape=self.shape,
            encoder_engine=self.encoder_engine,
            cross_kv=self.cross_kv,
        )

    @classmethod
    def from_manifest(cls, path: Path) -> ModelConfig:
        """Read a manifest.

        Args:
            path: A `manifest.json`.

        Raises:
            BuildError: The file is missing, is no JSON, or lacks a field.
        """
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BuildError(f"{path} cannot be read: {error}; build again") from error
        try:
            return cls._from_dict(manifest)
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise BuildError(
                f"{path} is not a manifest of this version ({error!r}); build again"
            ) from error

    @classmethod
    def _from_dict(cls, manifest: dict[str, Any]) -> ModelConfig:
        if manifest["format"] != MANIFEST_FORMAT:
            raise ValueError(f"format {manifest['format']}, this runtime reads {MANIFEST_FORMAT}")
        ids, built = dict(manifest["ids"]), manifest["built"]
        return cls(
            name=manifest["name"],
            runtime=built["runtime"],
            # Builds from before there was a choice do not name these two.
            encoder_engine=built.get("encoder_engine", built["runtime"]),
            cross_kv=built.get("cross_kv", "float"),
            precision=built["precision"],
            ids=TokenIds(**{**ids, "eos": tuple(ids["eos"])}),
            shape=ModelShape(**manifest["shape"]),
            tokenizer=TokenizerConfig(**manifest["tokenizer"]),
            limits=Limits(**manifest["limits"]),
            defaults=GenerationSettings(**manifest["defaults"]),
            artefacts=dict(manifest["artefacts"]),
        )


def verify_artefacts(folder: Path, artefacts: dict[str, str], names: list[str]) -> None:
    """Compare files with the sha256 that the manifest states for them.

    Args:
        folder: Where the files lie.
        artefacts: File name -> sha256, from the manifest.
        names: The files to check.

    Raises:
        BuildError: A file is missing or its bytes are not those that were built.
    """
    for name in names:
        path = folder / name
        if name not in artefacts:
            raise BuildError(f"the manifest beside {path} does not name it; build again")
        if not path.is_file():
            raise BuildError(f"{path} is missing; build again")
        actual = sha256_of(path)
        if actual != artefacts[name]:
            raise BuildError(
                f"{path} is corrupt: sha256 {actual}, the manifest says {artefacts[name]}; "
                "build again"
            )


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
