"""Lay out a Triton model repository around the engines of a build.

    manifest.json
    NAME/config.pbtxt           NAME/1/{model.py, manifest.json, tokenizer.json, kobart_runtime/,
                                        encoder.onnx, decoder.onnx}
    NAME_encoder/config.pbtxt   NAME_encoder/1/{model.py, manifest.json, kobart_runtime/,
                                                encoder.onnx}
    NAME_decoder/...            likewise with decoder.onnx

An int8 build has its portable graphs and its scales beside them in NAME/1. Where it keeps the
sources' keys and values as bytes the front model runs *.cross-int8.onnx, which lie there too, and
NAME_encoder runs the same encoder with encoder.cross-float.onnx behind it. A TorchScript build has
encoder.pt and decoder.pt for the ONNX files. A TensorRT build has plans; Triton's own backend runs
those of the engine models.

Every model folder is self-contained: a server that fetches one of them alone can run it. Equal
files are hard links of one another where the disk allows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builders import triton_config
from builders.paths import MODEL_REPOSITORY, RUNTIME_PACKAGE
from builders.plan_facts import PlanFacts
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import (
    ENGINE_FILES,
    MANIFEST_NAME,
    TOKENIZER_FILE,
    EngineConfig,
    sha256_of,
)

VERSION = "1"
CONFIG_FILE = "config.pbtxt"
MODEL_FILE = "model.py"
ROLES = ("encoder", "decoder")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of a build lie."""

    root: Path
    name: str  # of the front model
    runtime: str = "onnxruntime"

    @property
    def front(self) -> Path:
        """Version folder of the front model, where the originals of all shared files lie."""
        return self.root / self.name / VERSION

    def engine(self, role: str) -> Path:
        """Version folder of the engine model `role`, encoder or decoder."""
        return self.root / f"{self.name}_{role}" / VERSION

    @property
    def artefacts(self) -> list[Path]:
        """The files that a manifest vouches for."""
        return [self.front / name for name in (*ENGINE_FILES[self.runtime], TOKENIZER_FILE)]


def check_sources() -> None:
    """Refuse early to build from a tree that lacks parts.

    Raises:
        BuildError: A file of `model_repository/` is missing.
    """
    for model in ("kobart", *(f"kobart_{role}" for role in ROLES)):
        for path in (Path(CONFIG_FILE), Path(VERSION) / MODEL_FILE):
            if not (MODEL_REPOSITORY / model / path).is_file():
                raise BuildError(
                    f"{MODEL_REPOSITORY / model / path} is missing: build from a full checkout"
                )


def write_front(layout: Layout, tokenizer: Path, tokenizer_sha256: str) -> None:
    """Add all but the engines and the manifest to the front model's folder.

    Raises:
        BuildError: The tokenizer is not the one that was checked and compared.
        BuildError: A config.pbtxt of `model_repository/` is malformed.
    """
    source = MODEL_REPOSITORY / "kobart"
    shutil.copyfile(tokenizer, layout.front / TOKENIZER_FILE)
    if sha256_of(layout.front / TOKENIZER_FILE) != tokenizer_sha256:
        raise BuildError(f"{tokenizer} changed during the build: build again")
    _copy_runtime(layout.front)
    _copy_model(source, layout.front)
    _write_config(layout.front, triton_config.front_config(source / CONFIG_FILE, layout.name))


def link_models(
    layout: Layout,
    engines: EngineConfig,
    max_batch_size: int,
    precision: str,
    plans: Mapping[str, PlanFacts] | None = None,
) -> None:
    """Spread the manifest, and make the two engine models from the front model's files.

    Args:
        layout: Where they lie.
        engines: What runs which of them, and their dimensions.
        max_batch_size: Requests of one call.
        precision: Of the engines.
        plans: By file name; Triton runs plans itself, other engines by the python backend.

    Raises:
        BuildError: A config.pbtxt of `model_repository/` is malformed.
    """
    link(layout.root / MANIFEST_NAME, layout.front / MANIFEST_NAME)
    for role in ROLES:
        source = MODEL_REPOSITORY / f"kobart_{role}"
        folder = layout.engine(role)
        folder.mkdir(parents=True)
        files = engines.engine_model_files(role)
        for name in (*files, MANIFEST_NAME):
            link(layout.front / name, folder / name)
        plan = None
        if plans:
            [engine] = files
            facts = plans[engine]
            plan = triton_config.PlanModel(engine, len(facts.profiles), facts.kv_precision)
        else:
            _link_tree(layout.front / RUNTIME_PACKAGE.name, folder / RUNTIME_PACKAGE.name)
            _copy_model(source, folder)
        text = triton_config.engine_config(
            source / CONFIG_FILE,
            f"{layout.name}_{role}",
            engines.shape,
            max_batch_size,
            precision,
            plan,
        )
        _write_config(folder, text)


def runtime_sources() -> dict[Path, Path]:
    """Path below a model's version folder -> the file of this checkout that is copied there."""
    parent = RUNTIME_PACKAGE.parent
    return {path.relative_to(parent): path for path in sorted(RUNTIME_PACKAGE.rglob("*.py"))}


def _copy_runtime(folder: Path) -> None:
    for name, source in runtime_sources().items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _copy_model(source: Path, folder: Path) -> None:
    """Copy a model's Python files, which lie in its version folder as they do in a build."""
    for path in sorted((source / VERSION).glob("*.py")):
        shutil.copyfile(path, folder / path.name)


def _write_config(folder: Path, text: str) -> None:
    (folder.parent / CONFIG_FILE).write_text(text, encoding="utf-8")


def _link_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=link)


def link(source: str | Path, target: str | Path) -> None:
    """Make a hard link, or a copy on a disk without them."""
    try:
        os.link(source, target)
    except OSError:  # no hard links on this disk
        shutil.copyfile(source, target)
