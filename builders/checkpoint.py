"""Load a checkpoint: the PyTorch model, its resolved ids and defaults, and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import BartConfig, BartForConditionalGeneration

from builders.checkpoint_files import CheckpointFiles, find_files, find_folder
from builders.generation_defaults import resolve_defaults
from builders.paths import DEFAULT_CHECKPOINT, DEFAULT_TOKENIZER
from builders.prune_format import PrunedBart
from builders.special_ids import IdOverrides, resolve_ids
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import TOKENIZER_FILE, TokenIds, sha256_of
from kobart_runtime.settings import GenerationSettings

RANDOM_CHECKPOINT = "kobart-base-random"
RANDOM_SEED = 0
# Tied to the embeddings, or a buffer of zeros that checkpoints of the bare BartModel lack.
DERIVED_WEIGHTS = {
    "final_logits_bias",
    "lm_head.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a build is made from."""

    source: str  # as it was asked for
    model: BartForConditionalGeneration  # float32, in eval mode
    ids: TokenIds
    defaults: GenerationSettings  # before they are fitted to a build's limits
    tokenizer_path: Path  # a tokenizer.json
    tokenizer_source: str
    files: dict[str, str]  # file name -> sha256
    warnings: tuple[str, ...] = ()
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


def load_checkpoint(source: str, overrides: IdOverrides) -> Checkpoint:
    """Load a folder, a hub id, or `kobart-base-random`.

    Raises:
        CheckpointError: It is not a BART encoder-decoder, or cannot be served as it is.
        ConfigError: An override is outside the vocabulary.
    """
    if source == RANDOM_CHECKPOINT:
        return _random_checkpoint(overrides)
    files = find_files(source)
    check_architecture(files.config)
    defaults = resolve_defaults(files)
    model = _load_model(source)
    ids, warnings = resolve_ids(files, overrides, model.config.vocab_size)
    return Checkpoint(
        source=source,
        model=model,
        ids=ids,
        defaults=defaults,
        tokenizer_path=_find_tokenizer(files),
        tokenizer_source=source,
        files=files.sha256(),
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


def _load_model(source: str) -> BartForConditionalGeneration:
    location = find_folder(source) or source  # a hub id's weights are fetched here
    try:
        loaded: Any = PrunedBart.from_pretrained(
            location, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise CheckpointError(f"the weights of {source} cannot be loaded: {error}") from error
    model, loading = loaded
    if any(name.endswith("weight_mask") for name in loading["unexpected_keys"]):
        raise CheckpointError(
            f"{source} was saved with pruning masks: call ModelPruner.make_permanent(model) before "
            "save_pretrained"
        )
    missing = sorted(set(loading["missing_keys"]) - DERIVED_WEIGHTS)
    if missing:
        raise CheckpointError(
            f"{source} lacks {len(missing)} weights ({', '.join(missing[:3])} ...), which would "
            "be random: take the full checkpoint"
        )
    return model.eval()


def _find_tokenizer(files: CheckpointFiles) -> Path:
    path = files.folder / TOKENIZER_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{files.folder} has no {TOKENIZER_FILE}, the one form that is served: write it with "
            "AutoTokenizer.from_pretrained(CHECKPOINT).save_pretrained(CHECKPOINT)"
        )
    return path


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
