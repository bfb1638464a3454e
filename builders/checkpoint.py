"""Load a checkpoint: the PyTorch model, its resolved ids and defaults, and its tokenizer."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import BartConfig, BartForConditionalGeneration
from transformers.utils import logging as transformers_logging

from builders.adapter import Adapter, find_adapter, merge_adapter
from builders.checkpoint_files import (
    ADAPTER_FILE,
    CheckpointFiles,
    find_files,
    find_folder,
    weight_files,
)
from builders.generation_defaults import resolve_defaults
from builders.paths import DEFAULT_CHECKPOINT, DEFAULT_TOKENIZER
from builders.prune_format import PrunedBart
from builders.special_ids import IdOverrides, resolve_ids
from builders.tokenizer_files import find_tokenizer
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import TOKENIZER_FILE, TokenIds, sha256_of
from kobart_runtime.settings import GenerationSettings

RANDOM_CHECKPOINT = "kobart-base-random"
RANDOM_SEED = 0
# A buffer of zeros that checkpoints of the bare BartModel lack. Tied weights that could be derived
# are not among those that transformers calls missing.
DERIVED_WEIGHTS = {"final_logits_bias"}
EMBEDDINGS = {
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "lm_head.weight",
}
SHOWN_WEIGHTS = 4
# transformers looks for an adapter in this folder of a checkpoint, finds none and adds none.
NO_ADAPTER = {"subfolder": "no-adapter"}
FORBIDDEN_GLOBAL = re.compile(r"GLOBAL (\S+)")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a build is made from."""

    source: str  # as it was asked for
    model: BartForConditionalGeneration  # float32, in eval mode
    ids: TokenIds
    defaults: GenerationSettings  # before they are fitted to a build's limits
    tokenizer_path: Path  # a tokenizer.json
    tokenizer_source: str
    folder: Path | None  # where its own documents would lie; None: it has no folder
    files: dict[str, str]  # file name -> sha256
    warnings: tuple[str, ...] = ()
    adapter: Adapter | None = None  # what was merged into the weights
    trained: bool = True  # False: random weights, whose accuracy means nothing

    @property
    def config(self) -> BartConfig:
        """The model's dimensions."""
        return self.model.config

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding, and logits of a step."""
        return int(self.config.vocab_size)

    @property
    def max_positions(self) -> int:
        """Tokens that the encoder, and the decoder, have learned positions for."""
        return int(self.config.max_position_embeddings)


def load_checkpoint(
    source: str, overrides: IdOverrides, *, tokenizer: str | None = None, adapter: str | None = None
) -> Checkpoint:
    """Load a folder, a hub id, or `kobart-base-random`.

    Args:
        source: Which of them.
        overrides: Special ids that were asked for.
        tokenizer: A `tokenizer.json`, or a folder with one, in the place of the checkpoint's own.
        adapter: Folder of an adapter to merge into the weights.

    Raises:
        CheckpointError: It is not a BART encoder-decoder, or cannot be served as it is.
        ConfigError: An override is outside the vocabulary.
    """
    if source == RANDOM_CHECKPOINT:
        if tokenizer or adapter:
            raise CheckpointError(
                f"{RANDOM_CHECKPOINT} takes no --tokenizer and no --adapter: leave them out"
            )
        return _random_checkpoint(overrides)
    # Small files first: nothing is wrong with them when the weights are read.
    files = find_files(source)
    check_architecture(files.config)
    defaults = resolve_defaults(files)
    tokenizer_path = find_tokenizer(files, tokenizer)
    found_adapter = _find_adapter(source, files, adapter)
    model = _load_model(source, files)
    ids, warnings = resolve_ids(files, overrides, model.config.vocab_size)
    if found_adapter:
        merge_adapter(model, found_adapter)
    return Checkpoint(
        source=source,
        model=model,
        ids=ids,
        defaults=defaults,
        tokenizer_path=tokenizer_path,
        tokenizer_source=tokenizer or source,
        folder=files.folder,
        files={**files.sha256(), TOKENIZER_FILE: sha256_of(tokenizer_path)},
        adapter=found_adapter,
        warnings=warnings,
    )


def check_architecture(config: dict[str, Any]) -> None:
    """Refuse what is not a float BART encoder-decoder.

    Raises:
        CheckpointError: Names the key of config.json, its value and the one needed.
    """
    for key, wanted in (("model_type", "bart"), ("is_encoder_decoder", True)):
        if config.get(key, wanted) != wanted:
            raise CheckpointError(
                f"config.json has {key} {config[key]!r}, it must be {wanted!r}: "
                "only BART encoder-decoders can be built"
            )
    if "model_type" not in config:
        raise CheckpointError("config.json has no model_type: it must be 'bart'")
    if config.get("is_decoder"):
        raise CheckpointError(
            "config.json has is_decoder true: that is a decoder alone; take the full checkpoint"
        )
    if config.get("quantization_config"):
        raise CheckpointError(
            "config.json has quantization_config: start from the float checkpoint it came from"
        )


def _find_adapter(source: str, files: CheckpointFiles, asked: str | None) -> Adapter | None:
    """The adapter to merge; one that lies beside the weights is not left out silently."""
    if asked is not None:
        return find_adapter(asked)
    if (files.folder / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{source} holds an adapter beside its weights ({ADAPTER_FILE}): give --adapter "
            f"{files.folder} to merge it, or take a folder without it"
        )
    return None


def _load_model(source: str, files: CheckpointFiles) -> BartForConditionalGeneration:
    location = find_folder(source) or source  # a hub id's weights are fetched here
    try:
        with _errors_alone():
            # Sizes that do not match are refused below, in words of our own.
            loaded: Any = PrunedBart.from_pretrained(
                location,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                adapter_kwargs=NO_ADAPTER,
            )
    except UnpicklingError as error:
        raise CheckpointError(_not_only_tensors(source, files, error)) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"the weights of {source} cannot be loaded, a file is damaged or incomplete ({error}): "
            "copy or download it again"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise CheckpointError(
            f"the weights of {source} cannot be loaded ({reason}): copy or download them again"
        ) from error
    model, loading = loaded
    if any(name.endswith("weight_mask") for name in loading["unexpected_keys"]):
        raise CheckpointError(
            f"{source} was saved with pruning masks: call ModelPruner.make_permanent(model) before "
            "save_pretrained"
        )
    _check_sizes(source, loading["mismatched_keys"])
    _check_complete(source, model, set(loading["missing_keys"]), set(loading["unexpected_keys"]))
    return model.eval()


@contextmanager
def _errors_alone() -> Iterator[None]:
    """Keep transformers from printing its report: what it tells of is refused here."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _not_only_tensors(source: str, files: CheckpointFiles, error: UnpicklingError) -> str:
    """Torch's advice is to run what the file says; ours is not."""
    found = FORBIDDEN_GLOBAL.search(str(error))
    if not found:
        return (
            f"the weights of {source} cannot be loaded: a file is damaged or no PyTorch file; copy "
            "or download it again"
        )
    names = ", ".join(path.name for path in weight_files(files.folder)) or "its weights"
    return (
        f"the weights of {source} ({names}) hold {found[1]}, which is code and is not run: where "
        "you trust them, load them in PyTorch and save the model with save_pretrained, which "
        "writes safetensors"
    )


def _check_sizes(source: str, mismatched: Collection[tuple[str, Any, Any]]) -> None:
    """Refuse weights of other sizes than config.json tells."""
    if not mismatched:
        return
    name, stored, wanted = min(mismatched)
    others = f" and {len(mismatched) - 1} more" if len(mismatched) > 1 else ""
    raise CheckpointError(
        f"{source} has {name} of shape {list(stored)}, by its config.json it must be "
        f"{list(wanted)}{others}: take the config.json that was saved with the weights"
    )


def _check_complete(
    source: str, model: BartForConditionalGeneration, missing: set[str], unexpected: set[str]
) -> None:
    """Refuse weights that neither are in the files nor tied to one that is."""
    if any(".lora_" in name for name in unexpected):
        raise CheckpointError(
            f"{source} has the weights of an adapter among its own: save the adapter by peft's "
            "save_pretrained and give --adapter, or save what merge_and_unload() returns"
        )
    missing -= DERIVED_WEIGHTS
    if not missing:
        return
    names = sorted(missing)
    shown = ", ".join(names[:SHOWN_WEIGHTS]) + (" ..." if len(names) > SHOWN_WEIGHTS else "")
    if missing <= EMBEDDINGS and not model.config.tie_word_embeddings:
        remedy = (
            "config.json has tie_word_embeddings false, by which each has its own values: save the "
            "checkpoint with all of them, or set it to true if they were trained as one"
        )
    else:
        remedy = "take the full checkpoint"
    raise CheckpointError(
        f"{source} lacks {len(names)} weights ({shown}), which would be random: {remedy}"
    )


def _random_checkpoint(overrides: IdOverrides) -> Checkpoint:
    """KoBART's full size (124 M) with the ids of gogamza/kobart-base-v2 and seeded weights."""
    config = _kobart_base_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model = BartForConditionalGeneration(config).eval()
    files = CheckpointFiles(
        folder=DEFAULT_TOKENIZER.parent, config=config.to_dict(), generation_config=None
    )
    ids, warnings = resolve_ids(files, overrides, config.vocab_size)
    if not DEFAULT_TOKENIZER.is_file():
        raise CheckpointError(f"{DEFAULT_TOKENIZER} is missing: {RANDOM_CHECKPOINT} borrows it")
    return Checkpoint(
        source=RANDOM_CHECKPOINT,
        model=model,
        ids=ids,
        defaults=GenerationSettings(),
        tokenizer_path=DEFAULT_TOKENIZER,
        tokenizer_source=f"{DEFAULT_CHECKPOINT} (random weights have no tokenizer of their own)",
        folder=None,
        files={DEFAULT_TOKENIZER.name: sha256_of(DEFAULT_TOKENIZER)},
        warnings=warnings,
        trained=False,
    )


def _kobart_base_config() -> BartConfig:
    return BartConfig(
        vocab_size=30000,
        d_model=768,
        max_position_embeddings=1026,
        encoder_layers=6,
        decoder_layers=6,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=3072,
        decoder_ffn_dim=3072,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=3,
        decoder_start_token_id=1,
        forced_eos_token_id=1,
    )
