"""The builds of the comparison that users were promised, made where they are missing."""

from __future__ import annotations

from pathlib import Path

from builders.build_all import main as build_all
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import MANIFEST_NAME

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
    """A build of every variant; what an earlier run made is taken as it is.

    Raises:
        BuildError: One cannot be built.
    """
    stem = Path(checkpoint).name
    return [
        build_if_missing(FOLDER / f"{stem}-{name}", "--checkpoint", checkpoint, *flags)
        for name, flags in VARIANTS.items()
    ]


def build_if_missing(output: Path, *flags: str) -> Path:
    """The folder of a build, made by `kobart-build` with these flags unless it is there.

    Raises:
        BuildError: It cannot be built; the command has said why.
    """
    if not (output / MANIFEST_NAME).is_file() and build_all([*flags, "--output", str(output)]):
        raise BuildError(f"{output} could not be built: see above")
    return output
