"""The new checkpoint's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import BartForConditionalGeneration

from builders.checkpoint import Checkpoint
from builders.checkpoint_files import CONFIG_FILE, DEV_FILE, GENERATION_FILE, CheckpointFiles
from builders.prune_format import EXTENSION
from kobart_documents import Pair, write_jsonl
from kobart_runtime.model_config import TOKENIZER_FILE

FURTHER_TOKENIZER_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
SHAPE_KEYS = ("encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim")


def write_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    source: CheckpointFiles,
    dev_pairs: tuple[Pair, ...],
) -> None:
    """Write weights, configuration, tokenizer and dev documents.

    Args:
        folder: Empty.
        checkpoint: The model, without masks, and its tokenizer.
        source: The files that the model came from.
        dev_pairs: Become dev.jsonl, where a build looks for documents.
    """
    model = checkpoint.model
    model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors lets the owner alone read
    _write_configs(folder, model, source)
    shutil.copyfile(checkpoint.tokenizer_path, folder / TOKENIZER_FILE)
    for name in FURTHER_TOKENIZER_FILES:
        if (source.folder / name).is_file():
            shutil.copyfile(source.folder / name, folder / name)
    write_jsonl(folder / DEV_FILE, dev_pairs)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object, indented."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write_configs(
    folder: Path, model: BartForConditionalGeneration, source: CheckpointFiles
) -> None:
    """Keep the source's JSON but for the shapes and the number type.

    transformers 5 moves ids and generation settings between the two files when it saves, and a
    checkpoint of the other version's habits would then start or end its summaries otherwise.
    """
    saved = model.config.to_dict()
    shapes = {key: saved[key] for key in (*SHAPE_KEYS, EXTENSION) if key in saved}
    dropped = {EXTENSION, "torch_dtype"}
    kept = {key: value for key, value in source.config.items() if key not in dropped}
    if "num_hidden_layers" in kept:  # files of transformers 4 repeat the encoder's there
        shapes["num_hidden_layers"] = saved["encoder_layers"]
    write_json(folder / CONFIG_FILE, {**kept, **shapes, "dtype": "float32"})
    if source.generation_config is None:
        (folder / GENERATION_FILE).unlink(missing_ok=True)
    else:
        write_json(folder / GENERATION_FILE, source.generation_config)
