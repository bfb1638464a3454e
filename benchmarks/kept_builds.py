"""Builds that benchmarks keep for the next run, as long as they carry this runtime."""

from __future__ import annotations

import logging
from pathlib import Path

from builders.build_all import main as build_all
from builders.paths import RUNTIME_PACKAGE
from builders.repository import Layout, runtime_sources
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig

_log = logging.getLogger(__name__)


def kept_build(output: Path, *flags: str) -> Path:
    """The folder of a build: the one that is there, or one that is made now.

    A build carries a copy of `kobart_runtime`. One with another copy than this checkout's would
    be measured in place of what its figures are said to be of, so it is made anew.

    Args:
        output: The folder.
        flags: Those of `kobart-build` that make it.

    Raises:
        BuildError: It cannot be built; the command has said why.
    """
    is_there = (output / MANIFEST_NAME).is_file()
    if is_there and has_this_runtime(output):
        return output
    if is_there:
        _log.warning("%s carries another kobart_runtime than this one: building it anew", output)
    if build_all([*flags, "--output", str(output), "--force"]):
        raise BuildError(f"{output} could not be built: see above")
    return output


def has_this_runtime(build: Path) -> bool:
    """Whether a build's copy of `kobart_runtime` is this checkout's, byte for byte."""
    name = ModelConfig.from_manifest(build / MANIFEST_NAME).name
    front = Layout(root=build, name=name).front
    copies = {path.relative_to(front) for path in (front / RUNTIME_PACKAGE.name).rglob("*.py")}
    sources = runtime_sources()
    return copies == set(sources) and all(
        (front / copy).read_bytes() == source.read_bytes() for copy, source in sources.items()
    )
