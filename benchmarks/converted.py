"""A checkpoint in CTranslate2's forms, as contestants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.contestants import CTranslate2Contestant
from kobart_runtime.model_config import TokenIds

COMPUTE_TYPES = ("float32", "int8")


def ctranslate2_contestants(
    checkpoint: str,
    ids: TokenIds,
    folder: Path,
    load_options: Mapping[str, str | None] | None = None,
) -> Iterator[CTranslate2Contestant]:
    """One of each compute type; a conversion is a second or more for full-size KoBART.

    Args:
        checkpoint: As `builders.checkpoint.load_checkpoint` takes it.
        ids: The special ids to generate with.
        folder: Where the conversions go; must outlive the contestants.
        load_options: Further arguments of `load_checkpoint`.

    Raises:
        ConfigError: ctranslate2 is not installed.
    """
    from transformers.utils import logging as transformers_logging

    from benchmarks.systems import convert_to_ctranslate2
    from builders.checkpoint import load_checkpoint
    from builders.special_ids import IdOverrides

    transformers_logging.disable_progress_bar()
    loaded = replace(load_checkpoint(checkpoint, IdOverrides(), **(load_options or {})), ids=ids)
    for compute_type in COMPUTE_TYPES:
        converted = folder / compute_type
        converted.mkdir()
        convert_to_ctranslate2(loaded, converted, compute_type)
        yield CTranslate2Contestant(
            name=f"CTranslate2 {compute_type}",
            size_mb=(converted / "model.bin").stat().st_size / 1e6,
            folder=converted,
            ids=ids,
            compute_type=compute_type,
        )
