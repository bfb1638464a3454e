"""Names of the tensors that cross a program's border, each written once.

Engine names follow optimum-onnx: `decoder` = self-attention, `encoder` = cross-attention.
"""

from __future__ import annotations

from collections.abc import Callable

# Engines: kobart_encoder and kobart_decoder.
INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
DECODER_INPUT_IDS = "decoder_input_ids"
POSITION_IDS = "position_ids"
ENCODER_ATTENTION_MASK = "encoder_attention_mask"
DECODER_ATTENTION_MASK = "decoder_attention_mask"
LOGITS = "logits"
CANDIDATE_LOGPROBS = "candidate_logprobs"
CANDIDATE_IDS = "candidate_ids"

# Front model: kobart.
TEXT_INPUT = "text_input"
STREAM = "stream"
TEXT_OUTPUT = "text_output"
FINISH_REASON = "finish_reason"
NUM_INPUT_TOKENS = "num_input_tokens"
NUM_OUTPUT_TOKENS = "num_output_tokens"
TRUNCATED = "truncated"
OUTPUT_IDS = "output_ids"


def past_self(layer: int) -> tuple[str, str]:
    """Key and value inputs of a decoder layer's self-attention cache, float[R, H, C, D]."""
    return f"past_key_values.{layer}.decoder.key", f"past_key_values.{layer}.decoder.value"


def past_cross(layer: int) -> tuple[str, str]:
    """Key and value inputs of a decoder layer's cross-attention, float[R, H, S, D]."""
    return f"past_key_values.{layer}.encoder.key", f"past_key_values.{layer}.encoder.value"


def is_kv(name: str) -> bool:
    """Whether a tensor is a key or a value, cached or new, of any layer."""
    return name.endswith((".key", ".value"))


def is_past(name: str) -> bool:
    """Whether a tensor is one of the decoder's cached keys and values, of any layer."""
    return name.startswith("past_key_values.")


def present_self(layer: int) -> tuple[str, str]:
    """Key and value outputs of one decode step's self-attention, float[R, H, W, D]."""
    return f"present.{layer}.decoder.key", f"present.{layer}.decoder.value"


def present_cross(layer: int) -> tuple[str, str]:
    """Key and value outputs of the encoder for a decoder layer, float[R, H, S, D]."""
    return f"present.{layer}.encoder.key", f"present.{layer}.encoder.value"


def of_layers(names: Callable[[int], tuple[str, str]], num_layers: int) -> list[str]:
    """What one of the above names in all layers, in the order in which lists of K/V have them."""
    return [name for layer in range(num_layers) for name in names(layer)]
