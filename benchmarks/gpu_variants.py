"""What `benchmarks.gpu` builds: each variant of each model, by kobart-build and its own gates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.checkpoint import RANDOM_CHECKPOINT
from builders.config import BuildConfig
from builders.paths import DEFAULT_CHECKPOINT, DEFAULT_CHECKPOINT_FOLDER
from builders.pipeline import build
from builders.plans import all_profiles
from builders.precision import DEV_FILE, PORTABLE_FILES
from builders.prepared_plans import PlanJob, write_jobs
from kobart_runtime.errors import KobartError
from kobart_runtime.model_config import ENGINE_FILES, MANIFEST_NAME, ModelConfig

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

    def config(self, model: Model, runtime: str, output: Path) -> BuildConfig:
        """The build's options."""
        given: dict[str, Any] = dict(model.limits)
        if self.precision != "fp32":
            given["calibration_data"] = model.documents
        return BuildConfig(
            checkpoint=model.checkpoint,
            precision=self.precision,
            prune=self.prune or None,
            runtime=runtime,
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
        build(variant.config(model, "tensorrt", output))
    except KobartError as error:
        print(f"failed: {error}", flush=True)
        return Built(name=variant.name, folder=None, failure=str(error))
    return Built(name=variant.name, folder=output)


def prepare(model: Model, variants: Sequence[Variant], target: Path, work: Path) -> None:
    """Write each variant's graphs with their `plans.json` for another machine.

    Raises:
        KobartError: A build failed.
    """
    for variant in variants:
        folder = build(variant.config(model, "onnxruntime", work / variant.slug))
        config = ModelConfig.from_manifest(folder / MANIFEST_NAME)
        ready = target / variant.slug
        ready.mkdir(parents=True, exist_ok=True)
        graphs: Iterable[str] = ENGINE_FILES["onnxruntime"]
        if variant.precision == "int8":  # CPUs may run other int8 graphs, TensorRT takes Q/DQ
            graphs = PORTABLE_FILES.values()
        jobs = []
        profiles = all_profiles(config.shape, config.limits)
        for graph, plan, wanted in zip(graphs, ENGINE_FILES["tensorrt"], profiles, strict=True):
            shutil.copyfile(folder / config.name / "1" / graph, ready / graph)
            job = PlanJob(graph=graph, plan=plan, precision=variant.precision, profiles=wanted)
            jobs.append(job)
        write_jobs(ready, jobs)
        shutil.copyfile(folder / MANIFEST_NAME, ready / MANIFEST_NAME)
