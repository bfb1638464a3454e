"""The builds of the comparison that users were promised."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kept_builds import kept_build

FOLDER = Path("build/compare")
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

    Raises:
        BuildError: One cannot be built.
    """
    stem = Path(checkpoint).name
    return [
        kept_build(FOLDER / f"{stem}-{name}", "--checkpoint", checkpoint, *flags)
        for name, flags in VARIANTS.items()
    ]
