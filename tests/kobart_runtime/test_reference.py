"""The oracle itself: the slow reference equals transformers' `generate()` on a small model."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

from kobart_runtime.model_config import TokenIds
from kobart_runtime.settings import GenerationSettings
from tests import reference
from tests.reference import NextLogits

VOCAB_SIZE = 60


@pytest.fixture(scope="module")
def model() -> Any:
    """Random weights, large enough for logits that differ clearly from token to token."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=VOCAB_SIZE,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        init_std=1.0,
    )
    model = BartForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig()  # its own would fill in what is None below
    return model


def next_logits_of(model: Any, source: torch.Tensor) -> NextLogits:
    encoded = model.get_encoder()(source)

    def next_logits(prefix: tuple[int, ...]) -> np.ndarray:
        with torch.inference_mode():
            output = model(
                encoder_outputs=encoded,
                decoder_input_ids=torch.tensor([prefix]),
                use_cache=False,
            )
        logits: np.ndarray = output.logits[0, -1].numpy()
        return logits

    return next_logits


def transformers_config(settings: GenerationSettings, ids: TokenIds) -> GenerationConfig:
    given: dict[str, Any] = {
        "num_beams": settings.num_beams,
        "max_length": settings.max_new_tokens + 1,
        "min_new_tokens": settings.min_new_tokens,
        "no_repeat_ngram_size": settings.no_repeat_ngram_size,
        "repetition_penalty": settings.repetition_penalty,
        "decoder_start_token_id": ids.decoder_start,
        "bos_token_id": ids.bos,
        "eos_token_id": list(ids.eos),
        "pad_token_id": ids.pad,
        "forced_bos_token_id": ids.forced_bos,
        "forced_eos_token_id": ids.forced_eos,
        "do_sample": False,
    }
    if settings.num_beams > 1:
        given["length_penalty"] = settings.length_penalty
        given["early_stopping"] = settings.early_stopping
    return GenerationConfig(**given)


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("seed", range(16))
def test_reference_equals_transformers(model: Any, seed: int) -> None:
    rng = random.Random(seed)
    ids = TokenIds(
        bos=0,
        eos=rng.choice([(1,), (1, 9), (1, 9, 10)]),
        pad=3,
        decoder_start=rng.choice([1, 2]),
        forced_bos=rng.choice([None, None, 0]),
        forced_eos=rng.choice([None, 1, 2]),
    )
    settings = GenerationSettings(
        num_beams=rng.choice([1, 2, 3, 4, 6]),
        max_new_tokens=rng.choice([1, 2, 8, 20]),
        min_new_tokens=rng.choice([0, 0, 5, 30]),
        no_repeat_ngram_size=rng.choice([0, 1, 2, 3]),
        repetition_penalty=rng.choice([1.0, 1.3, 0.8]),
        length_penalty=rng.choice([1.0, 0.0, 2.0, -1.0]),
        early_stopping=rng.random() < 0.5,
    )
    source = torch.tensor([[rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 30))]])
    with torch.inference_mode():
        output = model.generate(source, generation_config=transformers_config(settings, ids))
    expected = tuple(output[0, 1:].tolist())
    result = reference.generate(next_logits_of(model, source), settings, ids)
    assert result.ids == expected, (settings, ids)
