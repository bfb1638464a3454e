"""Find a checkpoint's files and read its JSON as it was written, whatever wrote it.

transformers 4 and 5 put generation settings in different places and fill absent keys with
different defaults, so nothing is read through their classes here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from builders.paths import CHECKOUT, DEFAULT_CHECKPOINT
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import TOKENIZER_FILE, sha256_of

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
OPTIONAL_FILES = (GENERATION_FILE, TOKENIZER_FILE)
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*")
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """A checkpoint's folder and its raw JSON."""

    folder: Path
    config: dict[str, Any]
    generation_config: dict[str, Any] | None  # None: there is no such file

    @property
    def read_by_generate(self) -> dict[str, Any]:
        """The file that `generate()` takes its ids from: one of the two, never a mix."""
        return self.config if self.generation_config is None else self.generation_config

    def sha256(self) -> dict[str, str]:
        """File name -> sha256 of every file that can change what is built."""
        names = (CONFIG_FILE, *OPTIONAL_FILES)
        present = [self.folder / name for name in names if (self.folder / name).is_file()]
        for pattern in WEIGHTS:
            present.extend(sorted(self.folder.glob(pattern)))
        return {path.name: sha256_of(path) for path in present}


def find_files(source: str) -> CheckpointFiles:
    """Read the JSON of a checkpoint folder or of a hub id, downloading the small files.

    Raises:
        CheckpointError: There is no such checkpoint, or its JSON cannot be read.
    """
    folder = find_folder(source) or _download(source)
    config = _read_json(folder / CONFIG_FILE)
    if config is None:
        raise CheckpointError(
            f"{source} has no {CONFIG_FILE}: --checkpoint wants a folder with one"
        )
    return CheckpointFiles(
        folder=folder, config=config, generation_config=_read_json(folder / GENERATION_FILE)
    )


def find_folder(source: str) -> Path | None:
    """The local folder of a checkpoint, or None if the name can only be a hub id.

    Raises:
        CheckpointError: The name is neither a folder nor a possible hub id.
    """
    if Path(source).is_dir():
        return Path(source)
    if source == DEFAULT_CHECKPOINT and (CHECKOUT / source).is_dir():
        return CHECKOUT / source
    if source == DEFAULT_CHECKPOINT or Path(source).exists() or not HUB_ID.fullmatch(source):
        raise CheckpointError(f"{source} is not a folder: --checkpoint wants a folder or a hub id")
    return None


def _download(source: str) -> Path:
    try:
        config = str(cached_file(source, CONFIG_FILE))
        for name in OPTIONAL_FILES:
            cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{source} is no folder here and cannot be read from the hub: {reason}"
        ) from error
    return Path(config).parent


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(loaded).__name__}")
    return loaded
