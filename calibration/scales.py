"""The result of a calibration, and its JSON file.

A file names the documents and the graphs that it came from. It is of no use for another model:
reading it for one is refused.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, sha256_of

SCALES_FORMAT = 1
SCALES_FILE = "scales.json"
GRAPH_FILES = (ENCODER_FILE, DECODER_FILE)


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Symmetric int8 scales of activations: real value = scale * int8 value."""

    method: str  # "entropy" or "minmax"
    documents: str  # sha256 of the documents' file
    num_documents: int
    models: dict[str, str]  # graph file -> sha256 of the float32 graph
    scales: dict[str, dict[str, float]]  # graph file -> tensor -> scale, above 0

    def write(self, path: Path) -> None:
        """Write the JSON file; it appears whole or not at all."""
        content = {"format": SCALES_FORMAT, **asdict(self)}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def check_for(self, folder: Path) -> None:
        """Refuse another model.

        Args:
            folder: Holds the float32 graphs that the scales are to be used with.

        Raises:
            BuildError: They are not those of the calibration.
        """
        for name, expected in self.models.items():
            actual = graph_sha256(folder / name)
            if actual != expected:
                raise BuildError(
                    f"these scales were calibrated for a {name} with sha256 {expected}, "
                    f"{folder / name} has {actual}: calibrate again"
                )


def read_scales(path: Path, folder: Path) -> Scales:
    """Read a scales file for the float32 graphs of a folder.

    Raises:
        BuildError: It cannot be read, is malformed, or belongs to another model.
    """
    try:
        scales = _parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{path} is no scales file ({error!r}): calibrate again") from error
    scales.check_for(folder)
    return scales


def graph_sha256(path: Path) -> str:
    """Hash of a graph's file.

    Raises:
        BuildError: It is missing.
    """
    if not path.is_file():
        raise BuildError(f"{path} is missing: scales belong to the graphs of a float32 build")
    return sha256_of(path)


def _parse(content: Mapping[str, Any]) -> Scales:
    if content["format"] != SCALES_FORMAT:
        raise ValueError(f"format {content['format']}, this version reads {SCALES_FORMAT}")
    fields = {name: value for name, value in content.items() if name != "format"}
    scales = Scales(**fields)
    for values in scales.scales.values():
        for tensor, scale in values.items():
            if not (math.isfinite(scale) and scale > 0):
                raise ValueError(f"scale {scale} of {tensor}")
    if set(scales.models) != set(GRAPH_FILES) or set(scales.scales) != set(GRAPH_FILES):
        raise ValueError(f"graphs {sorted(scales.models)}, expected {sorted(GRAPH_FILES)}")
    return scales
