"""The engines' contract as data: names, types and shapes of all their inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kobart_runtime import bindings
from kobart_runtime.model_config import ModelShape

Shape = tuple[int, ...]
FREE = -1  # a dynamic size
KV_TYPES = ("FP32", "FP16")
_IDS = ("INT32",)


@dataclass(frozen=True)
class TensorContract:
    """What one input or output must be."""

    types: tuple[str, ...]  # one of them
    shape: Shape  # FREE where any size is accepted

    def fault(self, kind: str, shape: Shape) -> str | None:
        """What is wrong with a tensor of this type and shape, if anything."""
        fits = len(shape) == len(self.shape) and all(
            FREE in (wanted, size) or wanted == size
            for wanted, size in zip(self.shape, shape, strict=True)
        )
        if fits and kind in self.types:
            return None
        return f"is {kind} {list(shape)}, not {' or '.join(self.types)} {list(self.shape)}"


@dataclass(frozen=True)
class EngineContract:
    """All inputs and outputs of one engine."""

    inputs: Mapping[str, TensorContract]
    outputs: Mapping[str, TensorContract]


def encoder_contract(shape: ModelShape) -> EngineContract:
    """Of `kobart_encoder`."""
    ids = TensorContract(_IDS, (FREE, FREE))
    outputs = bindings.of_layers(bindings.present_cross, shape.num_decoder_layers)
    return EngineContract(
        inputs={bindings.INPUT_IDS: ids, bindings.ATTENTION_MASK: ids},
        outputs=dict.fromkeys(outputs, _kv(shape)),
    )


def decoder_contract(shape: ModelShape) -> EngineContract:
    """Of `kobart_decoder`."""
    names = {
        kind: bindings.of_layers(kind, shape.num_decoder_layers)
        for kind in (bindings.past_self, bindings.past_cross, bindings.present_self)
    }
    past = [*names[bindings.past_self], *names[bindings.past_cross]]
    candidates = (FREE, FREE, shape.num_candidates)
    return EngineContract(
        inputs={
            bindings.DECODER_INPUT_IDS: TensorContract(_IDS, (FREE, FREE)),
            bindings.POSITION_IDS: TensorContract(_IDS, (FREE, 1)),
            bindings.ENCODER_ATTENTION_MASK: TensorContract(_IDS, (FREE, FREE)),
            bindings.DECODER_ATTENTION_MASK: TensorContract(_IDS, (FREE, FREE, FREE)),
            **dict.fromkeys(past, _kv(shape)),
        },
        outputs={
            bindings.LOGITS: TensorContract(("FP32",), (FREE, FREE, shape.vocab_size)),
            bindings.CANDIDATE_LOGPROBS: TensorContract(("FP32",), candidates),
            bindings.CANDIDATE_IDS: TensorContract(_IDS, candidates),
            **dict.fromkeys(names[bindings.present_self], _kv(shape)),
        },
    )


def _kv(shape: ModelShape) -> TensorContract:
    return TensorContract(KV_TYPES, (FREE, shape.num_heads, FREE, shape.head_dim))
