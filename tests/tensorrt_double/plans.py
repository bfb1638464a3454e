"""A tiny seeded BART as ONNX files, and as plans of the double."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BartConfig, BartForConditionalGeneration

from builders.export import export_decoder, export_encoder
from builders.profiles import decoder_profiles, encoder_profiles
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, ModelShape
from kobart_runtime.settings import Limits

LIMITS = Limits(max_batch_size=6, max_source_length=150, max_target_length=20, max_beams=4)
# head_dim 3: no tensor of the cache is aligned by chance.
SHAPE = ModelShape(num_decoder_layers=2, num_heads=2, head_dim=3, vocab_size=97, num_candidates=16)


def tiny_model(seed: int = 0) -> BartForConditionalGeneration:
    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=SHAPE.vocab_size,
        d_model=SHAPE.num_heads * SHAPE.head_dim,
        encoder_layers=1,
        decoder_layers=SHAPE.num_decoder_layers,
        encoder_attention_heads=SHAPE.num_heads,
        decoder_attention_heads=SHAPE.num_heads,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=LIMITS.max_source_length,
    )
    model = BartForConditionalGeneration(config).eval()
    for parameter in model.parameters():  # logits far from one another
        parameter.data.mul_(3)
    return model


def export_tiny(folder: Path, *, joined: bool = False) -> None:
    """Write `encoder.onnx` and `decoder.onnx`."""
    export_encoder(tiny_model(), folder / ENCODER_FILE)
    export_decoder(tiny_model(), folder / DECODER_FILE, SHAPE.num_candidates, joined=joined)


def build_tiny_plans(onnx_folder: Path, folder: Path) -> None:
    """Write `encoder.plan` and `decoder.plan` with the `tensorrt` that is installed now."""
    from builders.engine import EngineOptions, build_plan

    jobs = {
        ENCODER_FILE: encoder_profiles(LIMITS),
        DECODER_FILE: decoder_profiles(SHAPE, LIMITS),
    }
    for name, profiles in jobs.items():
        plan = (folder / name).with_suffix(".plan")
        build_plan(onnx_folder / name, plan, profiles, EngineOptions())
