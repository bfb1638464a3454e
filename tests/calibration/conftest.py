"""A tiny float32 model with documents to calibrate it on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration

from builders.export import export_decoder, export_encoder
from calibration.documents import Encoders
from kobart_runtime.model_config import ModelShape

VOCAB_SIZE = 160
NUM_CANDIDATES = 8
TEXTS = [("가나다", "나"), ("마" * 40, "바사" * 20), ("아자차카", "타파"), ("하" * 12, "가나다라")]


@dataclass(frozen=True)
class Exported:
    """Two graphs and the model they came from."""

    folder: Path
    shape: ModelShape
    model: BartForConditionalGeneration


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("float")
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=VOCAB_SIZE, d_model=16, max_position_embeddings=64,
        encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, decoder_start_token_id=1,
    )  # fmt: skip
    model = BartForConditionalGeneration(config).eval()
    for parameter in model.parameters():  # logits far from one another
        parameter.data.mul_(3)
    export_encoder(model, folder / "encoder.onnx")
    export_decoder(model, folder / "decoder.onnx", NUM_CANDIDATES)
    shape = ModelShape(
        num_decoder_layers=1, num_heads=2, head_dim=8,
        vocab_size=VOCAB_SIZE, num_candidates=NUM_CANDIDATES,
    )  # fmt: skip
    return Exported(folder, shape, model)


@pytest.fixture(scope="session")
def encoders() -> Encoders:
    """One id a character: what matters here is that ids differ."""

    def encode(text: str) -> list[int]:
        return [7 + ord(letter) % (VOCAB_SIZE - 7) for letter in text]

    return Encoders(source=encode, summary=encode, decoder_start=1)


def write_documents(path: Path, texts: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"dialogue": source, "summary": summary}) for source, summary in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def documents_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("documents") / "dev.jsonl", TEXTS)
