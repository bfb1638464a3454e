"""The builds of the comparison that users were promised."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kept_builds import kept_build
from benchmarks.sizes import long_documents
from builders.checkpoint import RANDOM_CHECKPOINT
from builders.paths import KEPT_BUILDS

FOLDER = KEPT_BUILDS / "compare"
PRUNING = ("--prune", "structured=0.2")
VARIANTS: dict[str, tuple[str, ...]] = {
    "fp32": ("--precision", "fp32"),
    "torchscript": ("--precision", "fp32", "--runtime", "torchscript"),
    "pruned": ("--precision", "fp32", *PRUNING),
    "fp16": ("--precision", "fp16"),
    "int8": ("--precision", "int8"),
    "fp16-pruned": ("--precision", "fp16", *PRUNING),
}


def standard_builds(checkpoint: str) -> list[Path]:
    """A build of every variant; what an earlier run made is kept.

    Random weights have no documents of their own: those of `benchmarks.sizes` are joined dialogues.

    Raises:
        BuildError: One cannot be built.
    """
    stem = Path(checkpoint).name
    fitted: tuple[str, ...] = ()
    if checkpoint == RANDOM_CHECKPOINT:
        fitted = ("--calibration-data", str(long_documents(FOLDER)))
    return [
        kept_build(
            FOLDER / f"{stem}-{name}",
            *("--checkpoint", checkpoint, *flags),
            *(() if "fp32" in flags else fitted),
        )
        for name, flags in VARIANTS.items()
    ]
