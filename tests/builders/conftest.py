"""Tiny seeded checkpoints with KoBART's ids and a tokenizer of KoBART's kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import BartConfig, BartForConditionalGeneration

from builders.config import BuildConfig
from builders.pipeline import Source, load_source
from builders.precision import Int8Maker
from calibration import Scales, calibrate
from tests.conftest import MINI_CHECKPOINT
from tests.tensorrt_double.plans import export_tiny

VOCAB_SIZE = 160
MAX_POSITIONS = 64
CONTROL_TOKENS = ["<s>", "</s>", "<usr>", "<pad>", "<sys>", "<unk>", "<mask>"]
SENTENCES = [
    "어제 회의에서 다음 달 출시 일정을 확정했습니다",
    "기상청은 내일 중부 지방에 비가 내리겠다고 예보했다",
    "시험은 이번 주 금요일까지 마치기로 했습니다",
]

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """A character BPE as KoBART's: NFKC, Metaspace, control tokens 0..6, no post-processor."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=CONTROL_TOKENS, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return str(tokenizer.to_str())


@pytest.fixture(scope="session")
def make_checkpoint(
    tokenizer_json: str, tmp_path_factory: pytest.TempPathFactory
) -> MakeCheckpoint:
    """A function that writes a checkpoint folder.

    `config` and `generation` change keys of the two JSON files (None removes one); `generation`
    None leaves generation_config.json out, as files of transformers before 4.26 do.
    """

    def make(
        config: dict[str, Any] | None = None,
        generation: dict[str, Any] | None = None,
        *,
        seed: int = 0,
    ) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        changes = config or {}
        dimensions = {key: value for key, value in changes.items() if key in SIZES}
        torch.manual_seed(seed)
        model = BartForConditionalGeneration(BartConfig(**{**SIZES, **IDS, **dimensions}))
        for parameter in model.parameters():  # logits far from one another
            parameter.data.mul_(3)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink()
        _rewrite(folder / "config.json", changes)
        if generation is not None:
            _rewrite(folder / "generation_config.json", {**IDS, **generation})
        (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def mini() -> Source:
    """kobart-mini as an int8 build loads it, with all its documents."""
    return load_source(BuildConfig(checkpoint=str(MINI_CHECKPOINT), precision="int8"))[0]


@pytest.fixture(scope="session")
def tiny_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 graphs of a tiny model; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    export_tiny(folder)
    return folder


@pytest.fixture
def peaks_for_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scales from the largest magnitudes, which are found faster than those by entropy."""

    def calibrate_by_peaks(self: Int8Maker) -> Scales:
        return calibrate(self.source, self.shape, self.documents, method="minmax")

    monkeypatch.setattr(Int8Maker, "calibrate", calibrate_by_peaks)


SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": MAX_POSITIONS,
}
IDS: dict[str, Any] = {
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 3,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 1,
}


def _rewrite(path: Path, changes: dict[str, Any]) -> None:
    """Merge keys into a JSON file; None removes a key."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    merged = {**content, **changes}
    kept = {key: value for key, value in merged.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")
