"""The architecture of kobart-mini, and how it is written to a folder that transformers loads."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

BOS_ID = EOS_ID = DECODER_START_ID = FORCED_EOS_ID = 1
PAD_ID = 3
MAX_POSITIONS = 1026
INIT_STD = 0.02
GENERATION: dict[str, Any] = {
    "num_beams": 4,
    "max_length": 128,
    "no_repeat_ngram_size": 3,
    "early_stopping": True,
}
TOKEN_IDS: dict[str, Any] = {
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "pad_token_id": PAD_ID,
    "decoder_start_token_id": DECODER_START_ID,
    "forced_eos_token_id": FORCED_EOS_ID,
}


def new_model(vocab_size: int) -> BartForConditionalGeneration:
    """Return an untrained model: KoBART's architecture with head_dim 48, 4 and 3 layers.

    Position embeddings start as sinusoids of the usual initial scale, so that positions beyond the
    lengths seen early in training are meaningful from the start; they are trained like the rest.
    """
    config = BartConfig(
        vocab_size=vocab_size,
        d_model=192,
        encoder_layers=4,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=768,
        decoder_ffn_dim=768,
        max_position_embeddings=MAX_POSITIONS,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        init_std=INIT_STD,
        scale_embedding=False,
        **TOKEN_IDS,
    )
    model = BartForConditionalGeneration(config)
    for part in (model.model.encoder, model.model.decoder):
        weight = part.embed_positions.weight
        weight.data.copy_(_sinusoids(*weight.shape) * INIT_STD * 2**0.5)
    return model


def _sinusoids(num_positions: int, width: int) -> torch.Tensor:
    """Return sine and cosine position codes, float32[num_positions, width] (arXiv:1706.03762)."""
    position = torch.arange(num_positions, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10_000.0)) / width))
    return torch.stack([(position * rate).sin(), (position * rate).cos()], dim=-1).flatten(1)


def export(model: BartForConditionalGeneration, folder: Path) -> None:
    """Write config.json, generation_config.json and fp16 model.safetensors into a folder.

    The files appear one by one, each complete: they are written to a sibling folder and renamed.
    """
    half = BartForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half = half.half()
    half.generation_config = GenerationConfig(**GENERATION, **TOKEN_IDS)
    half.config.task_specific_params = {"summarization": dict(GENERATION)}
    staging = folder.with_name(f".{folder.name}.staging")
    half.save_pretrained(staging)
    (staging / "model.safetensors").chmod(0o644)
    folder.mkdir(parents=True, exist_ok=True)
    for file in staging.iterdir():
        file.replace(folder / file.name)
    shutil.rmtree(staging)
