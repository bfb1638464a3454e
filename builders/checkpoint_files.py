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

from huggingface_hub import is_offline_mode
from transformers.utils.hub import cached_file

from builders.paths import CHECKOUT, DEFAULT_CHECKPOINT
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import TOKENIZER_FILE, sha256_of

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
ADAPTER_FILE = "adapter_config.json"
ADDED_TOKENS_FILE = "added_tokens.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
VOCABULARY_FILE = "vocab.json"
DEV_FILE = "dev.jsonl"  # documents with their summaries that a checkpoint ships
# What a hub id's tokenizer is checked against, beside the files that a build is made from.
TOKEN_FILES = (ADDED_TOKENS_FILE, TOKENIZER_CONFIG_FILE, VOCABULARY_FILE)
OPTIONAL_FILES = (GENERATION_FILE, TOKENIZER_FILE)
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*")
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
STEP = re.compile(r"\d+$")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


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
        return {path.name: sha256_of(path) for path in (*present, *weight_files(self.folder))}


def find_files(source: str) -> CheckpointFiles:
    """Read the JSON of a checkpoint folder or of a hub id, downloading the small files.

    Raises:
        CheckpointError: There is no such checkpoint, or its JSON cannot be read.
    """
    folder = find_folder(source) or _download(source)
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(_no_config(source, folder))
    for path in weight_files(folder):
        check_no_pointer(path)
    return CheckpointFiles(
        folder=folder,
        config=read_json(folder / CONFIG_FILE) or {},
        generation_config=read_json(folder / GENERATION_FILE),
    )


def find_folder(source: str) -> Path | None:
    """The local folder of a checkpoint, or None if the name can only be a hub id.

    Raises:
        CheckpointError: The name is neither a folder nor a possible hub id.
    """
    path = Path(source)
    if path.is_dir():
        return path
    if source == DEFAULT_CHECKPOINT and (CHECKOUT / source).is_dir():
        return CHECKOUT / source
    # Whatever begins in an existing folder is a path with a mistake in it, and no hub id.
    looks_like_a_path = path.exists() or ("/" in source and path.parent.is_dir())
    if source == DEFAULT_CHECKPOINT or looks_like_a_path or not HUB_ID.fullmatch(source):
        raise CheckpointError(f"{source} is not a folder: --checkpoint wants a folder or a hub id")
    return None


def weight_files(folder: Path) -> list[Path]:
    """The files that may hold weights, and their indexes."""
    return [path for pattern in WEIGHTS for path in sorted(folder.glob(pattern))]


def check_no_pointer(path: Path) -> None:
    """Refuse what Git LFS leaves in the place of a large file that was not downloaded.

    Raises:
        CheckpointError: The file is such a pointer.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(200)
    if not head.startswith(LFS_POINTER):
        return
    size = re.search(rb"^size (\d+)$", head, re.MULTILINE)
    missing = f" to a file of {int(size[1]):,} bytes" if size else ""
    raise CheckpointError(
        f"{path} is a Git LFS pointer{missing}, which was not downloaded: run `git lfs pull` in "
        f"{path.parent}"
    )


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file, or None if there is no such file.

    Raises:
        CheckpointError: It cannot be read, or is no JSON object.
    """
    if not path.is_file():
        return None
    check_no_pointer(path)
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(loaded).__name__}")
    return loaded


def _no_config(source: str, folder: Path) -> str:
    """What a folder without config.json is, as far as its files tell."""
    if (folder / ADAPTER_FILE).is_file():
        base = (read_json(folder / ADAPTER_FILE) or {}).get("base_model_name_or_path")
        named = f"of {base} (base_model_name_or_path)" if base else "that does not name its base"
        return (
            f"{source} holds an adapter alone, {named}: give both, "
            f"--checkpoint {base or 'BASE'} --adapter {source}"
        )
    inside = sorted(
        (path.parent for path in folder.glob(f"*/{CONFIG_FILE}")),
        key=lambda path: (_step(path), path.name),
    )
    if inside:
        return (
            f"{source} has no {CONFIG_FILE}, {', '.join(path.name for path in inside)} in it "
            f"{'has' if len(inside) == 1 else 'have'} one: give --checkpoint {inside[-1]}"
        )
    return f"{source} has no {CONFIG_FILE}: --checkpoint wants a folder with one"


def _step(folder: Path) -> int:
    """Of a Trainer's `checkpoint-500`; other folders come first."""
    found = STEP.search(folder.name)
    return int(found[0]) if found else -1


def _download(source: str) -> Path:
    found: list[str] = []
    try:
        for name in (CONFIG_FILE, *OPTIONAL_FILES, ADAPTER_FILE, *TOKEN_FILES):
            # Without a network a file that was never asked for counts as absent.
            needed = name in (CONFIG_FILE, *OPTIONAL_FILES) or not is_offline_mode()
            path = cached_file(
                source,
                name,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=needed,
            )
            found += [str(path)] if path else []
        if not found:
            found = [str(cached_file(source, CONFIG_FILE))]  # raises, and says why
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{source} is no folder here and cannot be read from the hub: {reason}"
        ) from error
    return Path(found[0]).parent
