"""What `benchmarks.gpu` builds: each variant of each model, by kobart-build and its own gates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.checkpoint import RANDOM_CHECKPOINT
from builders.checkpoint_files import DEV_FILE
from builders.config import BuildConfig
from builders.paths import DEFAULT_CHECKPOINT, DEFAULT_CHECKPOINT_FOLDER
from builders.pipeline import build
from kobart_runtime.errors import KobartError
from kobart_runtime.model_config import MANIFEST_NAME

MINI_DOCUMENTS = str(DEFAULT_CHECKPOINT_FOLDER / DEV_FILE)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint that is measured."""

    name: str
    checkpoint: str
    documents: str  # that fp16 and int8 are fitted to
    test_documents: Path | None = None  # None: random weights, whose summaries mean nothing
    limits: tuple[tuple[str, int], ...] = ()  # of the builds, where not kobart-build's own


MINI = Model(
    name="kobart-mini",
    checkpoint=DEFAULT_CHECKPOINT,
    documents=MINI_DOCUMENTS,
    test_documents=DEFAULT_CHECKPOINT_FOLDER / "test.jsonl",
)
FULL = Model(
    name="KoBART, full size, random weights",
    checkpoint=RANDOM_CHECKPOINT,
    documents=MINI_DOCUMENTS,
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to build a model."""

    name: str
    precision: str
    prune: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """As a folder's name."""
        return "-".join([self.precision, *(step.replace("=", "") for step in self.prune)])

    def config(self, model: Model, output: Path, *, prepare: bool = False) -> BuildConfig:
        """The build's options."""
        given: dict[str, Any] = dict(model.limits)
        if self.precision != "fp32":
            given["calibration_data"] = model.documents
        return BuildConfig(
            checkpoint=model.checkpoint,
            precision=self.precision,
            prune=self.prune or None,
            runtime="tensorrt",
            prepare=prepare,
            output=str(output),
            **given,
        )


VARIANTS = (
    Variant(name="TensorRT fp32", precision="fp32"),
    Variant(name="TensorRT fp16", precision="fp16"),
    Variant(name="TensorRT int8", precision="int8"),
    Variant(
        name="TensorRT fp16 + structured pruning 20 %",
        precision="fp16",
        prune=("structured=0.2",),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Built:
    """A variant that was built, or why it was not."""

    name: str
    folder: Path | None
    failure: str | None = None

    @property
    def manifest(self) -> dict[str, Any]:
        """What the build says of itself; empty without one."""
        if self.folder is None:
            return {}
        content = json.loads((self.folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        return dict(content)


def build_variants(model: Model, variants: Sequence[Variant], folder: Path) -> list[Built]:
    """Build all variants; one that fails does not keep the others from being measured."""
    return [_build(model, variant, folder / variant.slug) for variant in variants]


def _build(model: Model, variant: Variant, output: Path) -> Built:
    if output.exists():
        shutil.rmtree(output)
    print(f"\n{model.name}: {variant.name}", flush=True)
    try:
        build(variant.config(model, output))
    except KobartError as error:
        print(f"failed: {error}", flush=True)
        return Built(name=variant.name, folder=None, failure=str(error))
    return Built(name=variant.name, folder=output)


def prepare(model: Model, variants: Sequence[Variant], target: Path) -> None:
    """Write each variant's graphs, profiles and manifest for another machine.

    Raises:
        KobartError: A build failed, or its folder exists already.
    """
    for variant in variants:
        build(variant.config(model, target / variant.slug, prepare=True))
