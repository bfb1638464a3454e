"""What the engines are fed: real ids, and the keys and values that the encoder makes of them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kobart_runtime import bindings
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.runners import Engine, open_encoder, open_engine

NUM_BEAMS = 4
NUM_ENTRIES = 64  # of the self-attention cache: in the midst of a summary
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True, order=True)
class Point:
    """One shape of one engine."""

    role: str  # "encoder" or "decoder"
    batch_size: int
    source_len: int
    num_beams: int = NUM_BEAMS  # of the decoder


def encoder_feeds(ids: Sequence[int], point: Point) -> Feeds:
    """Sources without padding, each beginning elsewhere in the ids: int32[R, S]."""
    stream = np.resize(np.asarray(ids, np.int32), point.batch_size * point.source_len)
    input_ids = stream.reshape(point.batch_size, point.source_len)
    return {bindings.INPUT_IDS: input_ids, bindings.ATTENTION_MASK: np.ones_like(input_ids)}


def decoder_feeds(ids: Sequence[int], point: Point, config: ModelConfig, encoder: Engine) -> Feeds:
    """One decode step over the encoder's keys and values.

    The self-attention cache holds the first entries of the cross-attention's: numbers of the
    right size, and nothing depends on which they are.
    """
    num_layers = config.shape.num_decoder_layers
    names = bindings.of_layers(bindings.present_cross, num_layers)
    sources = encoder_feeds(ids, point)
    cross = encoder(names, sources)
    rows = point.batch_size
    feeds = {
        bindings.DECODER_INPUT_IDS: sources[bindings.INPUT_IDS][:, : point.num_beams].copy(),
        bindings.POSITION_IDS: np.full((rows, 1), NUM_ENTRIES // point.num_beams, np.int32),
        bindings.ENCODER_ATTENTION_MASK: sources[bindings.ATTENTION_MASK],
        bindings.DECODER_ATTENTION_MASK: np.ones((rows, point.num_beams, NUM_ENTRIES), np.int32),
    }
    past_cross = bindings.of_layers(bindings.past_cross, num_layers)
    past_self = bindings.of_layers(bindings.past_self, num_layers)
    feeds |= dict(zip(past_cross, cross, strict=True))
    entries = np.arange(NUM_ENTRIES) % point.source_len
    feeds |= {
        name: np.take(array, entries, axis=2) for name, array in zip(past_self, cross, strict=True)
    }
    return feeds


def front_decoder_feeds(
    ids: Sequence[int], point: Point, config: ModelConfig, folder: Path
) -> Feeds:
    """As `decoder_feeds`, for the decoder that the front model runs: cross-attention K/V as kept.

    Raises:
        KobartError: The encoder cannot be opened or run.
    """
    feeds = decoder_feeds(ids, point, config, open_engine(folder, "encoder", config))
    if config.cross_kv == "int8":
        sources = encoder_feeds(ids, point)
        encoder = open_encoder(folder, config.engines)
        cross = encoder.encode(sources[bindings.INPUT_IDS], sources[bindings.ATTENTION_MASK])
        names = bindings.of_layers(bindings.past_cross, config.shape.num_decoder_layers)
        feeds |= {name: array.copy() for name, array in zip(names, cross, strict=True)}
    return feeds


def output_names(role: str, config: ModelConfig) -> list[str]:
    """What the generation loop asks of an engine: no logits."""
    num_layers = config.shape.num_decoder_layers
    if role == "encoder":
        return bindings.of_layers(bindings.present_cross, num_layers)
    present = bindings.of_layers(bindings.present_self, num_layers)
    return [bindings.CANDIDATE_LOGPROBS, bindings.CANDIDATE_IDS, *present]


def largest_output_bytes(point: Point, config: ModelConfig) -> int:
    """Of one output, for perf_analyzer's shared memory; it asks for logits too."""
    shape = config.shape
    kv = shape.num_heads * point.source_len * shape.head_dim
    logits = NUM_BEAMS * shape.vocab_size
    return 4 * point.batch_size * (kv if point.role == "encoder" else logits)


def perf_input(feeds: Feeds) -> dict[str, object]:
    """The content of an `--input-data` file: the first request, which `-b` repeats."""
    return {"data": [dict(_tensors(feeds))]}


def _tensors(feeds: Feeds) -> Iterator[tuple[str, dict[str, object]]]:
    for name, array in feeds.items():
        content = base64.b64encode(np.ascontiguousarray(array[0]).tobytes()).decode("ascii")
        yield name, {"b64": content, "shape": list(array.shape[1:])}
