"""Merge a trained adapter (LoRA and its kin) into the weights of its base, through peft."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import BartForConditionalGeneration

from builders.checkpoint_files import ADAPTER_FILE, check_no_pointer, read_json
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import sha256_of

WEIGHTS_FILES = ("adapter_model.safetensors", "adapter_model.bin")
MERGE_TOLERANCE = 1e-4  # of the largest logit
NUM_TRIED_IDS = 16


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The files of an adapter."""

    source: str  # as it was asked for
    files: dict[str, str]  # file name -> sha256
    base: str | None  # as its configuration names it


def find_adapter(source: str) -> Adapter:
    """Look at an adapter's folder; nothing is loaded.

    Raises:
        CheckpointError: It holds no adapter, or peft is not installed.
    """
    folder = Path(source)
    config = read_json(folder / ADAPTER_FILE)
    if config is None:
        raise CheckpointError(
            f"--adapter {source} has no {ADAPTER_FILE}: give a folder that peft has saved"
        )
    weights = [folder / name for name in WEIGHTS_FILES if (folder / name).is_file()]
    if not weights:
        raise CheckpointError(
            f"--adapter {source} has no weights ({' or '.join(WEIGHTS_FILES)}): give the folder "
            "that peft has saved, whole"
        )
    for path in weights:
        check_no_pointer(path)
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise CheckpointError(
            "--adapter needs peft, which is not installed: pip install 'kobart-triton[adapter]'"
        ) from error
    paths = [folder / ADAPTER_FILE, *weights]
    return Adapter(
        source=source,
        files={path.name: sha256_of(path) for path in paths},
        base=config.get("base_model_name_or_path"),
    )


def merge_adapter(model: BartForConditionalGeneration, adapter: Adapter) -> None:
    """Put an adapter's changes into the weights of its base.

    Args:
        model: The base, float32, in eval mode; it is changed in place.
        adapter: What to merge.

    Raises:
        CheckpointError: The adapter does not fit the model, or cannot be merged.
    """
    import peft

    try:
        with warnings.catch_warnings():
            # What they tell of is checked here: missing weights, and ties that a merge breaks.
            warnings.simplefilter("ignore")
            wrapped = peft.PeftModel.from_pretrained(model, adapter.source).eval()
            stored = set(peft.utils.load_peft_weights(adapter.source, device="cpu"))
            _check_complete(adapter, stored, set(peft.get_peft_model_state_dict(wrapped)))
            before = _logits(wrapped)
            merged = wrapped.merge_and_unload(safe_merge=True)
    except AttributeError as error:  # prompts, prefixes
        raise CheckpointError(
            f"--adapter {adapter.source} adds inputs instead of changing weights and cannot be "
            "merged: train a LoRA adapter"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"--adapter {adapter.source} does not fit the checkpoint or is damaged ({reason}): "
            f"give --checkpoint its base{f', {adapter.base}' if adapter.base else ''}"
        ) from error
    except UnpicklingError as error:
        raise CheckpointError(
            f"--adapter {adapter.source} holds more than tensors, which is never run: save it as "
            f"{WEIGHTS_FILES[0]}"
        ) from error
    assert merged is model
    model.requires_grad_(True)  # peft froze the base
    difference = float((_logits(model) - before).abs().max())
    if difference > MERGE_TOLERANCE * max(1.0, float(before.abs().max())):
        raise CheckpointError(
            f"--adapter {adapter.source} cannot be merged: the logits differ by {difference:.3g} "
            "afterwards, as happens when it changes one of several tied embeddings; train it with "
            "target_modules that are not tied"
        )


def _check_complete(adapter: Adapter, stored: set[str], wanted: set[str]) -> None:
    """Refuse what peft would leave at its initial values, or out."""
    for names, what in ((wanted - stored, "lacks"), (stored - wanted, "has, and the base not,")):
        if names:
            raise CheckpointError(
                f"--adapter {adapter.source} {what} {len(names)} weights ({min(names)} ...): give "
                f"--checkpoint its base{f', {adapter.base}' if adapter.base else ''}, and the "
                "adapter as peft saved it"
            )


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    """Of a made-up text; float32[1, T, V]."""
    ids = torch.arange(min(model.config.vocab_size, NUM_TRIED_IDS))[None]
    output = model(input_ids=ids, decoder_input_ids=ids, use_cache=False)
    return torch.as_tensor(output.logits)
