"""Seeded checkpoints whose summaries are long and varied, to compare generation with."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BartConfig, BartForConditionalGeneration


@dataclass(frozen=True, kw_only=True)
class SeededCheckpoint:
    """What distinguishes one seeded checkpoint from another."""

    seed: int
    vocab_size: int
    encoder_layers: int
    decoder_layers: int
    decoder_start: int
    forced_eos: int
    # Standard deviation of the weights. transformers' default of 0.02 gives nearly the same logits
    # after any prefix; from about 0.1 on, what was generated decides what comes next.
    init_std: float

    def save(self, folder: Path, tokenizer: Path) -> Path:
        """Write config, weights and tokenizer as `save_pretrained` would; returns the folder."""
        config = BartConfig(
            vocab_size=self.vocab_size,
            d_model=96,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=192,
            decoder_ffn_dim=192,
            max_position_embeddings=1026,
            init_std=self.init_std,
            pad_token_id=3,
            bos_token_id=0 if self.decoder_start == 2 else 1,
            eos_token_id=1,
            decoder_start_token_id=self.decoder_start,
            forced_eos_token_id=self.forced_eos,
        )
        torch.manual_seed(self.seed)
        BartForConditionalGeneration(config).save_pretrained(folder)
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
        return folder


# The ids of gogamza/kobart-summarization, and a vocabulary with six added speaker tokens.
USR_START = SeededCheckpoint(
    seed=11,
    vocab_size=30006,
    encoder_layers=3,
    decoder_layers=2,
    decoder_start=2,
    forced_eos=2,
    init_std=0.11,
)
DEEP_DECODER = SeededCheckpoint(
    seed=12,
    vocab_size=6000,
    encoder_layers=2,
    decoder_layers=5,
    decoder_start=1,
    forced_eos=1,
    init_std=0.1,
)
