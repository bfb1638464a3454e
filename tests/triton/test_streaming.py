"""Chunks of a stream: whole characters as a reader sees them, and joined the unary answer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import regex  # type: ignore[import-untyped]  # transformers needs it
import torch
from tokenizers import Tokenizer
from transformers import BartConfig, BartForConditionalGeneration

from builders.config import BuildConfig
from builders.pipeline import build
from client import KobartClient
from tests.patience import PATIENCE_S
from tests.triton.conftest import running

pytestmark = pytest.mark.triton

CONCURRENCY = 16
MIXED_SCRIPTS = [
    "오늘 😀 기분 👍🏽 좋아 👨‍👩‍👧‍👦 🇰🇷🇯🇵 :) ^^",
    "ㅋㅋㅋ ㅠㅠ ㅇㅋ ㄱㄱ 하ㅏㅏ",
    "각 하 값",  # conjoining jamo
    "KoBART는 2021年に公開된 модель, 가격은 ₩1,000／개입니다．",
    "ＡＢＣ１２３㈜½㎏ ﬁ 뷁쀏꿿",
    "नमस्ते สวัสดี مرحبا שלום e\u0301\u0323",
    "줄\n바꿈\r\n과\t탭\u00a0공백\u200b",
    "a",
]


def checked_stream(client: KobartClient, text: str, settings: dict[str, Any]) -> str:
    """The joined chunks; asserts that each one ends where a reader's character ends."""
    chunks = [chunk.text for chunk in client.stream(text, **settings)]
    joined = "".join(chunks)
    assert not any("\ufffd" in chunk for chunk in chunks)
    assert all(chunks[:-1]), "an empty chunk"
    boundaries = {0, *accumulate(map(len, regex.findall(r"\X", joined)))}
    assert boundaries.issuperset(accumulate(map(len, chunks))), chunks
    return joined


def streams_that_equal_unary(
    client: KobartClient, texts: Sequence[str], **settings: float
) -> list[str]:
    """The summaries; asserts that streamed and unary ones are the same."""

    def run(number: int, text: str) -> str:
        mine = {**settings, "num_beams": (1, 4)[number % 2]}
        streamed = checked_stream(client, text, mine)
        assert streamed == client.summarize(text, **mine).text, text
        return streamed

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return list(pool.map(run, range(len(texts)), texts))


def test_sentences(client: KobartClient, sentences: list[str]) -> None:
    streams_that_equal_unary(client, sentences[:500], max_new_tokens=10)


def test_mixed_scripts(client: KobartClient) -> None:
    streams_that_equal_unary(client, MIXED_SCRIPTS * 2, max_new_tokens=16)


def rare_ids(folder: Path) -> list[int]:
    """Tokens of emoji, emoticons, jamo, marks: what extends, or is extended by, its neighbours."""
    vocab = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    rare = regex.compile(r"[\p{Emoji}\p{M}\u1100-\u11ff\u200d]|[:^;]")
    return [id_ for name, id_ in vocab.items() if rare.search(name) and not name.startswith("<")]


@pytest.fixture(scope="module")
def random_words(
    kobart_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KobartClient]:
    """KoBART's tokenizer under random weights: any token may follow any other, odd ones too."""
    checkpoint = tmp_path_factory.mktemp("random") / "checkpoint"
    shutil.copytree(kobart_tokenizer, checkpoint)
    vocab_size = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).get_vocab_size()
    torch.manual_seed(3)
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=vocab_size,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=1,
            decoder_attention_heads=1,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            max_position_embeddings=256,
            bos_token_id=1,
            eos_token_id=1,
            pad_token_id=3,
            decoder_start_token_id=1,
            forced_eos_token_id=1,
            init_std=0.3,
        )
    )
    model.final_logits_bias[0, rare_ids(checkpoint)] = 3.0
    model.save_pretrained(checkpoint)
    output = build(
        BuildConfig(checkpoint=str(checkpoint), output=str(checkpoint.with_name("build")))
    )
    with (
        running(output, checkpoint.with_name("log")) as server,
        KobartClient(server.grpc_url, timeout_s=PATIENCE_S) as client,
    ):
        yield client


def test_any_token_after_any_other(random_words: KobartClient, sentences: list[str]) -> None:
    texts = [*MIXED_SCRIPTS, *sentences[:40]]
    settings = {"no_repeat_ngram_size": 1, "min_new_tokens": 48, "max_new_tokens": 48}
    written = "".join(streams_that_equal_unary(random_words, texts, **settings))
    for kind in (r"[\u1100-\u115f]", r"[\u1160-\u11a7]", r"\p{M}", r"\p{Emoji_Presentation}"):
        assert regex.search(kind, written), f"the random model writes no {kind}"
