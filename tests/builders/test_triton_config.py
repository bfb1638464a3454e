"""config.pbtxt: the written files, parsed back, against the contract of the models."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from builders.paths import MODEL_REPOSITORY
from builders.triton_config import engine_config, front_config
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import ModelShape
from kobart_runtime.settings import SETTING_NAMES

SHAPE = ModelShape(num_decoder_layers=3, num_heads=4, head_dim=8, vocab_size=99, num_candidates=16)
CACHE = ("TYPE_FP32", [4, -1, 8])
Tensors = dict[str, tuple[str, list[int]]]


def parse(text: str) -> ModelConfig:
    return text_format.Parse(text, ModelConfig())


def tensors(repeated: object) -> Tensors:
    return {
        tensor.name: (type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type
                      .values_by_number[tensor.data_type].name, list(tensor.dims))
        for tensor in repeated  # type: ignore[attr-defined]
    }  # fmt: skip


def engine(role: str) -> ModelConfig:
    source = MODEL_REPOSITORY / f"kobart_{role}" / "config.pbtxt"
    return parse(engine_config(source, f"news_{role}", SHAPE, max_batch_size=7))


def test_front_model() -> None:
    config = parse(front_config(MODEL_REPOSITORY / "kobart" / "config.pbtxt", "news"))
    assert (config.name, config.backend, config.max_batch_size) == ("news", "python", 0)
    assert config.model_transaction_policy.decoupled
    [group] = config.instance_group
    assert (group.count, group.kind) == (1, ModelInstanceGroup.KIND_CPU)
    integer, real, flag = ("TYPE_INT32", [1]), ("TYPE_FP32", [1]), ("TYPE_BOOL", [1])
    assert tensors(config.input) == {
        "text_input": ("TYPE_STRING", [1]),
        "stream": flag,
        "num_beams": integer,
        "max_new_tokens": integer,
        "min_new_tokens": integer,
        "no_repeat_ngram_size": integer,
        "length_penalty": real,
        "repetition_penalty": real,
        "early_stopping": flag,
    }
    assert [tensor.name for tensor in config.input if not tensor.optional] == ["text_input"]
    assert tensors(config.output) == {
        "text_output": ("TYPE_STRING", [1]),
        "finish_reason": ("TYPE_STRING", [1]),
        "num_input_tokens": integer,
        "num_output_tokens": integer,
        "truncated": flag,
        "output_ids": ("TYPE_INT32", [-1]),
    }


def test_every_generation_setting_is_an_input_of_the_front_model() -> None:
    config = parse(front_config(MODEL_REPOSITORY / "kobart" / "config.pbtxt", "kobart"))
    assert set(SETTING_NAMES) < {tensor.name for tensor in config.input}


def test_encoder() -> None:
    config = engine("encoder")
    assert (config.name, config.backend, config.max_batch_size) == ("news_encoder", "python", 7)
    assert tensors(config.input) == {
        "input_ids": ("TYPE_INT32", [-1]),
        "attention_mask": ("TYPE_INT32", [-1]),
    }
    assert tensors(config.output) == {
        f"present.{layer}.encoder.{part}": CACHE for layer in range(3) for part in ("key", "value")
    }


def test_decoder() -> None:
    config = engine("decoder")
    assert (config.name, config.backend, config.max_batch_size) == ("news_decoder", "python", 7)
    pasts = {
        f"past_key_values.{layer}.{kind}.{part}": CACHE
        for layer in range(3)
        for kind in ("decoder", "encoder")
        for part in ("key", "value")
    }
    assert tensors(config.input) == {
        "decoder_input_ids": ("TYPE_INT32", [-1]),
        "position_ids": ("TYPE_INT32", [1]),
        "encoder_attention_mask": ("TYPE_INT32", [-1]),
        "decoder_attention_mask": ("TYPE_INT32", [-1, -1]),
        **pasts,
    }
    assert tensors(config.output) == {
        "logits": ("TYPE_FP32", [-1, 99]),
        "candidate_logprobs": ("TYPE_FP32", [-1, 16]),
        "candidate_ids": ("TYPE_INT32", [-1, 16]),
        **{f"present.{i}.decoder.{part}": CACHE for i in range(3) for part in ("key", "value")},
    }


def test_the_written_file_names_its_source() -> None:
    text = front_config(MODEL_REPOSITORY / "kobart" / "config.pbtxt", "news")
    assert text.startswith("# Written by kobart-build from model_repository/kobart/config.pbtxt:")


def test_a_malformed_source_is_refused_with_its_place(tmp_path: Path) -> None:
    source = tmp_path / "config.pbtxt"
    source.write_text('nam: "kobart"\n', encoding="utf-8")
    with pytest.raises(BuildError, match=r'config\.pbtxt cannot be read: 1:1.*"nam"'):
        front_config(source, "kobart")
