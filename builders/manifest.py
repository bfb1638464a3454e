"""The manifest: what was asked for, what was built, and from what.

`kobart_runtime/model_config.py` reads the part that generation depends on; the rest is for people
and for later comparisons.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from builders.artefact import PRECISION_SHARE_OF, Artefact
from builders.checkpoint import RANDOM_CHECKPOINT, Checkpoint
from builders.checkpoint_files import find_folder
from builders.config import BuildConfig
from builders.cpu_engines import CpuEngines
from builders.paths import CHECKOUT
from builders.plans import Plans
from builders.precision import Conversion
from builders.processor import Processor
from builders.prune_checkpoint import Pruning
from builders.prune_format import dimensions
from builders.prune_ledger import num_params
from builders.verification import Verification
from kobart_runtime.model_config import (
    MANIFEST_FORMAT,
    MANIFEST_NAME,
    EngineConfig,
    ModelShape,
    sha256_of,
)
from kobart_runtime.settings import GenerationSettings, Limits

PACKAGES = ("numpy", "onnx", "onnxruntime", "tokenizers", "torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class BuildFacts:
    """All that a manifest tells, each part from the step that knows it."""

    config: BuildConfig
    runtime: str  # really built
    reason: str  # why this runtime
    checkpoint: Checkpoint
    shape: ModelShape
    limits: Limits
    defaults: GenerationSettings
    artefact: Artefact  # encoder and decoder together, as read back
    products: Mapping[str, Mapping[str, float]]  # of each graph: precision -> share of products
    verification: Verification
    processor: Processor  # of the machine that builds
    conversion: Conversion | None = None  # None: float32, as exported
    cpu: CpuEngines | None = None  # None: nothing was left to choose
    pruning: Pruning | None = None  # None: built as the checkpoint is
    plans: Plans | None = None  # None: no TensorRT

    @property
    def encoder_engine(self) -> str:
        """What runs the encoder."""
        return self.cpu.encoder.engine if self.cpu else self.runtime

    @property
    def cross_kv(self) -> str:
        """How the front model keeps cross-attention K/V."""
        return self.cpu.cross_kv.kept if self.cpu else "float"

    @property
    def engines(self) -> EngineConfig:
        """What the front model computes with."""
        return EngineConfig(
            runtime=self.runtime,
            shape=self.shape,
            encoder_engine=self.encoder_engine,
            cross_kv=self.cross_kv,
        )

    @property
    def files(self) -> dict[str, list[str]]:
        """Model -> the engine files that it opens."""
        name, engines = self.config.model_name, self.engines
        roles = {
            f"{name}_{role}": list(engines.engine_model_files(role))
            for role in ("encoder", "decoder")
        }
        return {name: list(engines.files), **roles}

    @property
    def int8_by(self) -> str | None:
        """What of TensorRT made int8 plans of the float32 graphs, if anything did."""
        return self.plans.int8_by if self.plans else None

    @property
    def precision(self) -> str:
        """Really built."""
        return "int8" if self.int8_by else self.artefact.precision


def write_manifest(folder: Path, facts: BuildFacts, artefacts: Sequence[Path]) -> None:
    """Write `manifest.json` into a build's root."""
    manifest = describe(facts, artefacts)
    text = json.dumps(manifest, ensure_ascii=False, indent=2)
    (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def describe(facts: BuildFacts, artefacts: Sequence[Path]) -> dict[str, Any]:
    """The manifest as JSON values."""
    config = facts.config
    return {
        "format": MANIFEST_FORMAT,
        "name": config.model_name,
        "requested": {
            "precision": config.precision,
            "runtime": config.runtime,
            "encoder_engine": config.encoder_engine,
            "cross_kv": config.cross_kv,
            "tune": config.tune,
        },
        "built": {
            "precision": facts.precision,
            # Where TensorRT quantizes float32 graphs, what they say is not what the plans compute.
            "precision_share": None if facts.int8_by else facts.artefact.precision_share,
            "precision_share_of": PRECISION_SHARE_OF,
            "products": None if facts.int8_by else facts.products,
            "quantization": facts.int8_by or facts.artefact.quantization,
            "runtime": facts.runtime,
            "reason": facts.reason,
            "encoder_engine": facts.encoder_engine,
            "cross_kv": facts.cross_kv,
            "files": facts.files,
            "opset": facts.artefact.opset,
            "gpu": asdict(facts.plans.gpu) if facts.plans and facts.plans.gpu else None,
            "tensorrt": facts.plans.describe() if facts.plans else None,
            "prepared": config.prepare,  # graphs alone: the plans are made on another machine
        },
        "ids": asdict(facts.checkpoint.ids),
        "shape": asdict(facts.shape),
        "tokenizer": asdict(config.text_to_ids),
        "limits": asdict(facts.limits),
        "defaults": asdict(facts.defaults),
        "artefacts": {path.name: sha256_of(path) for path in artefacts},
        "artefact_bytes": {path.name: path.stat().st_size for path in artefacts},
        "verification": asdict(facts.verification),
        "conversion": asdict(facts.conversion) if facts.conversion else None,
        "encoder": asdict(facts.cpu.encoder) if facts.cpu else None,
        "cross_kv": asdict(facts.cpu.cross_kv) if facts.cpu else None,
        "checkpoint": _describe_checkpoint(facts),
        "model": dimensions(facts.checkpoint.model),
        "pruning": asdict(facts.pruning) if facts.pruning else None,
        "versions": {"kobart-triton": _own_version(), **_versions(facts.encoder_engine)},
        "machine": {
            "cpu": facts.processor.name,
            "cpu_flags": list(facts.processor.flags),
            "cores": len(os.sched_getaffinity(0)),
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _describe_checkpoint(facts: BuildFacts) -> dict[str, Any]:
    checkpoint, pruning = facts.checkpoint, facts.pruning
    source, tokenizer = _located(checkpoint.source), checkpoint.tokenizer_source
    return {
        "source": source,
        "trained": checkpoint.trained,
        "tokenizer": source if tokenizer == checkpoint.source else tokenizer,
        "adapter": asdict(checkpoint.adapter) if checkpoint.adapter else None,
        "parameters": (pruning.stats["total_params"] if pruning else num_params(checkpoint.model)),
        "files": checkpoint.files,
        "warnings": list(checkpoint.warnings),
    }


def _located(source: str) -> str:
    """The name of a loaded checkpoint that finds it from any working directory."""
    folder = None if source == RANDOM_CHECKPOINT else find_folder(source)
    return str(folder.resolve()) if folder else source  # a hub id is the same everywhere


def _versions(encoder_engine: str) -> dict[str, str]:
    packages = [*PACKAGES, "openvino"] if encoder_engine == "openvino" else PACKAGES
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _own_version() -> str:
    """From the checkout that builds, which need not be installed."""
    text = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    return found[1] if found else "unknown"
