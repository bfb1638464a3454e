"""TensorRT optimization profiles as data: every shape that the generation loop can ask for.

The encoder gets one profile for each range of source lengths, the decoder one for each range of
batch sizes. Their ranges do not overlap, so each shape has exactly one profile.
"""

from __future__ import annotations

from dataclasses import dataclass

from kobart_runtime import bindings
from kobart_runtime.admission import ENTRIES_STEP, SOURCE_STEP, round_up
from kobart_runtime.model_config import ModelShape
from kobart_runtime.scheduler import TOKENS_WHEN_IDLE
from kobart_runtime.settings import Limits

Shape = tuple[int, ...]
SHORT_SOURCES = (128, 512)  # source lengths up to these have profiles of their own
BATCH_GROWTH = 4  # batch sizes 1, 2..4, 5..16, ... up to the build's limit
# What kernels are chosen for, where the limits allow it: beams, entries, source of usual requests.
USUAL_BEAMS, USUAL_ENTRIES, USUAL_SOURCE = 4, 128, 512


@dataclass(frozen=True)
class ShapeRange:
    """Shapes of one input: smallest, the one to be fastest, largest."""

    min: Shape
    opt: Shape
    max: Shape


Profile = dict[str, ShapeRange]  # input name -> its shapes


def encoder_profiles(limits: Limits) -> list[Profile]:
    """By source length; the longer the sources, the fewer are encoded together."""
    ends = [end for end in SHORT_SOURCES if end < limits.max_source_length]
    profiles: list[Profile] = []
    shortest = 1
    for longest in (*ends, limits.max_source_length):
        most = max(1, min(limits.max_batch_size, TOKENS_WHEN_IDLE // shortest))
        usual = max(1, min(limits.max_batch_size, TOKENS_WHEN_IDLE // longest))
        sizes = ShapeRange((1, shortest), (usual, longest), (most, longest))
        profiles.append({bindings.INPUT_IDS: sizes, bindings.ATTENTION_MASK: sizes})
        shortest = longest + 1
    return profiles


def decoder_profiles(shape: ModelShape, limits: Limits) -> list[Profile]:
    """By batch size; beams, cache entries and source length are free up to the limits."""
    profiles: list[Profile] = []
    smallest = 1
    while smallest <= limits.max_batch_size:
        largest = min(limits.max_batch_size, BATCH_GROWTH ** len(profiles))
        profiles.append(_decoder_profile(shape, limits, smallest, largest))
        smallest = largest + 1
    return profiles


def max_entries(limits: Limits) -> int:
    """Cache entries of a slot whose beams share no ancestor, as `DecodeBatch` rounds them."""
    return round_up(limits.max_beams * limits.max_target_length, ENTRIES_STEP)


def _decoder_profile(shape: ModelShape, limits: Limits, smallest: int, largest: int) -> Profile:
    most_entries, most_source = (
        max_entries(limits),
        round_up(limits.max_source_length, SOURCE_STEP),
    )
    steps = (
        Step(smallest, 1, 1, 1),
        Step(
            largest,
            min(USUAL_BEAMS, limits.max_beams),
            min(USUAL_ENTRIES, most_entries),
            min(USUAL_SOURCE, most_source),
        ),
        Step(largest, limits.max_beams, most_entries, most_source),
    )
    low, usual, high = (step_shapes(shape, step) for step in steps)
    return {name: ShapeRange(low[name], usual[name], high[name]) for name in low}


@dataclass(frozen=True)
class Step:
    """Sizes of one decode step."""

    requests: int
    beams: int
    entries: int
    source: int  # length


def step_shapes(shape: ModelShape, step: Step) -> dict[str, Shape]:
    """Shapes of all inputs of one decode step."""
    requests, heads, head_dim = step.requests, shape.num_heads, shape.head_dim
    shapes: dict[str, Shape] = {
        bindings.DECODER_INPUT_IDS: (requests, step.beams),
        bindings.POSITION_IDS: (requests, 1),
        bindings.ENCODER_ATTENTION_MASK: (requests, step.source),
        bindings.DECODER_ATTENTION_MASK: (requests, step.beams, step.entries),
    }
    for layer in range(shape.num_decoder_layers):
        shapes |= dict.fromkeys(
            bindings.past_self(layer), (requests, heads, step.entries, head_dim)
        )
        shapes |= dict.fromkeys(
            bindings.past_cross(layer), (requests, heads, step.source, head_dim)
        )
    return shapes
