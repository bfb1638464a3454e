"""PyTorch checkpoint -> ONNX: the encoder with its cross-attention K/V, and one decode step.

The graphs are what every runtime and every TensorRT since 8.6 takes: opset 17, int32 ids, only
standard operators. Their tensors are named in `kobart_runtime/bindings.py`.

Shapes: R requests, W beams, S source length, C cache entries, H heads, D head dim, M d_model,
V vocabulary, K candidates.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration
from transformers.models.bart.modeling_bart import (
    BartAttention,
    BartDecoder,
    BartDecoderLayer,
    BartEncoder,
    BartEncoderLayer,
)

from kobart_runtime import bindings

OPSET = 17  # the first with LayerNormalization, the last that TensorRT 8.6 parses

# Added to the attention scores of what must not be seen. exp() of it is exactly 0 in fp32 as long
# as scores stay below 1e4 in magnitude, and it still fits fp16 (largest finite value 65504).
MASKED_SCORE = -30000.0


def export_encoder(model: BartForConditionalGeneration, path: Path) -> None:
    """Write the encoder's ONNX file.

    Inputs int32[R, S] ids and mask; outputs, for each decoder layer, the cross-attention key and
    value, float32[R, H, S, D].
    """
    num_layers: int = model.config.decoder_layers
    outputs = bindings.of_layers(bindings.present_cross, num_layers)
    ids = torch.ones(2, 3, dtype=torch.int32)
    _export(
        EncoderWithCrossKv(model),
        {bindings.INPUT_IDS: ids, bindings.ATTENTION_MASK: torch.ones_like(ids)},
        dict.fromkeys(outputs, ("requests", "", "source", "")),
        {
            bindings.INPUT_IDS: ("requests", "source"),
            bindings.ATTENTION_MASK: ("requests", "source"),
        },
        path,
    )


def export_decoder(
    model: BartForConditionalGeneration, path: Path, num_candidates: int, *, joined: bool = False
) -> None:
    """Write the decode step's ONNX file.

    Args:
        model: The checkpoint, float32, in eval mode.
        path: The file to write.
        num_candidates: K, the number of sorted candidates returned for each row.
        joined: See `DecodeStep`.
    """
    layers = model.model.decoder.layers
    attention: BartAttention = layers[0].self_attn
    requests, beams, source, entries = 2, 3, 5, 4
    kv = torch.zeros(requests, attention.num_heads, 1, attention.head_dim)
    inputs = {
        bindings.DECODER_INPUT_IDS: torch.ones(requests, beams, dtype=torch.int32),
        bindings.POSITION_IDS: torch.ones(requests, 1, dtype=torch.int32),
        bindings.ENCODER_ATTENTION_MASK: torch.ones(requests, source, dtype=torch.int32),
        bindings.DECODER_ATTENTION_MASK: torch.ones(requests, beams, entries, dtype=torch.int32),
    }
    axes = {
        bindings.DECODER_INPUT_IDS: ("requests", "beams"),
        bindings.POSITION_IDS: ("requests", ""),
        bindings.ENCODER_ATTENTION_MASK: ("requests", "source"),
        bindings.DECODER_ATTENTION_MASK: ("requests", "beams", "entries"),
    }
    outputs = {
        bindings.LOGITS: ("requests", "beams", ""),
        bindings.CANDIDATE_LOGPROBS: ("requests", "beams", ""),
        bindings.CANDIDATE_IDS: ("requests", "beams", ""),
    }
    for layer in range(len(layers)):
        for name in bindings.past_self(layer):
            inputs[name] = kv.expand(-1, -1, entries, -1).clone()
            axes[name] = ("requests", "", "entries", "")
        for name in bindings.past_cross(layer):
            inputs[name] = kv.expand(-1, -1, source, -1).clone()
            axes[name] = ("requests", "", "source", "")
        for name in bindings.present_self(layer):
            outputs[name] = ("requests", "", "beams", "")
    _export(DecodeStep(model, num_candidates, joined=joined), inputs, outputs, axes, path)


class EncoderWithCrossKv(nn.Module):
    """The encoder, and the keys and values that each decoder layer attends to.

    Computed here they are computed once per request (BART decoder, arXiv:1910.13461, section 2.1).
    """

    def __init__(self, model: BartForConditionalGeneration) -> None:
        super().__init__()
        self.encoder: BartEncoder = model.model.encoder
        self.cross_attentions = nn.ModuleList(
            layer.encoder_attn for layer in model.model.decoder.layers
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Cross-attention key and value of each decoder layer, float32[R, H, S, D]."""
        embedded = self.encoder.embed_tokens(input_ids)
        # Positions are the first S rows of the table: slicing by the mask's own shape keeps the
        # graph free of a Range operator. Rows 0 and 1 are BART's unused offset.
        offset = self.encoder.embed_positions.offset
        positions = self.encoder.embed_positions.weight[offset:][: input_ids.shape[1]]
        hidden = self.encoder.layernorm_embedding(embedded + positions)
        bias = _mask_bias(attention_mask)[:, None, None, :]
        for layer in self.encoder.layers:
            hidden = _encoder_layer(layer, hidden, bias)
        return [
            _split_heads(projection(hidden), attention)
            for attention in self.cross_attentions
            for projection in (attention.k_proj, attention.v_proj)
        ]


class DecodeStep(nn.Module):
    """One decoder step for R requests of W beams over static caches, ending in K candidates.

    Beams of a request share its cross-attention K/V: they are folded into the query axis. The
    self-attention cache is a set of entries without order (BART adds positions at the input), and
    each beam sees the entries of its own ancestors through `decoder_attention_mask`, so that a
    beam search never copies a cache. The step's own K/V is attended to beside the cache and
    returned for the caller to write.

    Attention to both is computed in one of two ways that give the same result. A CPU is best
    served if the own token's score is appended to the scores: nothing of the cache is copied.
    `joined` appends its key and value to the cache's instead, so that the attention is two products
    with a softmax between them, which TensorRT fuses into one kernel; the copy costs it less than
    the scores of long caches in memory.
    """

    other_beams: Tensor  # if joined: float32[K, K], the bias of the own tokens' scores

    def __init__(
        self, model: BartForConditionalGeneration, num_candidates: int, *, joined: bool = False
    ) -> None:
        super().__init__()
        self.joined = joined
        if joined:  # a beam sees its own new token alone; W is at most K
            others = (1.0 - torch.eye(num_candidates)) * MASKED_SCORE
            self.register_buffer("other_beams", others)
        self.decoder: BartDecoder = model.model.decoder
        self.self_projections = nn.ModuleList(
            _fuse_linear([layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj])
            for layer in self.decoder.layers
        )
        self.lm_head: nn.Linear = model.lm_head
        self.register_buffer("final_logits_bias", model.final_logits_bias)
        self.num_candidates = num_candidates

    def forward(
        self,
        decoder_input_ids: Tensor,
        position_ids: Tensor,
        encoder_attention_mask: Tensor,
        decoder_attention_mask: Tensor,
        *past_key_values: Tensor,
    ) -> list[Tensor]:
        """See the engines' contract: past is (self key, self value, cross key, cross value) x L."""
        embedded = self.decoder.embed_tokens(decoder_input_ids)
        offset = self.decoder.embed_positions.offset
        positions = nn.functional.embedding(
            position_ids, self.decoder.embed_positions.weight[offset:]
        )
        hidden = self.decoder.layernorm_embedding(embedded + positions)
        self_bias = self._self_bias(decoder_attention_mask)[:, None, :, :]
        self_attention = _joined_self_attention if self.joined else _cached_self_attention
        cross_bias = _mask_bias(encoder_attention_mask)[:, None, None, :]
        present: list[Tensor] = []
        for index, layer in enumerate(self.decoder.layers):
            self_key, self_value, cross_key, cross_value = past_key_values[4 * index :][:4]
            attended, key, value = self_attention(
                layer.self_attn,
                self.self_projections[index](hidden),
                self_key,
                self_value,
                self_bias,
            )
            hidden = layer.self_attn_layer_norm(hidden + attended)
            hidden = _cross_attention(layer, hidden, cross_key, cross_value, cross_bias)
            hidden = _feed_forward(layer, hidden)
            present += [key, value]
        return [*self._head(hidden), *present]

    def _self_bias(self, mask: Tensor) -> Tensor:
        """What is added to the scores of the cache, and of the own tokens behind it if joined."""
        bias = _mask_bias(mask)
        if not self.joined:
            return bias
        num_beams = mask.shape[1]
        own = self.other_beams[:num_beams, :num_beams]
        # A sum repeats it for each request without operators that work a shape out.
        return torch.cat([bias, own + bias[..., :1] * 0.0], dim=-1)

    def _head(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits float32[R, W, V], and log-probabilities and ids of the K best, sorted."""
        logits = self.lm_head(hidden) + self.final_logits_bias
        best, ids = torch.topk(logits, self.num_candidates, dim=-1)
        # log-sum-exp over the best logit, which top-k has found already, cannot overflow.
        top = best[..., :1]
        log_total = torch.log(torch.sum(torch.exp(logits - top), dim=-1, keepdim=True))
        return logits, best - top - log_total, ids.to(torch.int32)


def _mask_bias(mask: Tensor) -> Tensor:
    """0 where the mask is 1, MASKED_SCORE where it is 0; float32, the mask's shape."""
    return (1.0 - mask.float()) * MASKED_SCORE


class _OnnxReshape(torch.autograd.Function):
    """`_reshape` in ONNX's short form: 0 is "as it is".

    The tracer writes a reshape between dynamic axes as a dozen small nodes that work its shape out
    in every call: at batch 1 a sixth of a decode step.
    """

    @staticmethod
    def forward(_context: Any, states: Tensor, sizes: Sequence[int]) -> Tensor:
        return states.reshape(*states.shape[:2], *sizes)

    @staticmethod
    def symbolic(graph: Any, states: Any, sizes: Sequence[int]) -> Any:
        shape = graph.op("Constant", value_t=torch.tensor([0, -1, *sizes]))
        return graph.op("Reshape", states, shape)


def _reshape(states: Tensor, *sizes: int) -> Tensor:
    """[R, T, ...] -> [R, T, *sizes]."""
    if torch.onnx.is_in_onnx_export():
        return _OnnxReshape.apply(states, sizes)
    return _OnnxReshape.forward(None, states, sizes)


def _split_heads(states: Tensor, attention: BartAttention) -> Tensor:
    """[R, T, H * D] -> [R, H, T, D]."""
    return _reshape(states, attention.num_heads, attention.head_dim).transpose(1, 2)


def _merge_heads(states: Tensor, attention: BartAttention) -> Tensor:
    """[R, H, T, D] -> [R, T, H * D]."""
    return _reshape(states.transpose(1, 2), attention.num_heads * attention.head_dim)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention of scaled queries [R, H, T, D] over [R, H, S, D]."""
    scores = torch.matmul(query, key.transpose(2, 3)) + bias
    return torch.matmul(torch.softmax(scores, dim=-1), value)


def _encoder_layer(layer: BartEncoderLayer, hidden: Tensor, bias: Tensor) -> Tensor:
    attention: BartAttention = layer.self_attn
    query = _split_heads(attention.q_proj(hidden) * attention.scaling, attention)
    key = _split_heads(attention.k_proj(hidden), attention)
    value = _split_heads(attention.v_proj(hidden), attention)
    attended = attention.out_proj(_merge_heads(_attend(query, key, value, bias), attention))
    hidden = layer.self_attn_layer_norm(hidden + attended)
    return _feed_forward(layer, hidden)


def _cached_self_attention(
    attention: BartAttention, projected: Tensor, past_key: Tensor, past_value: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend to a beam's visible cache entries and to its own new token.

    Returns:
        The layer's output [R, W, M], and the new key and value [R, H, W, D].
    """
    query, key, value = _query_key_value(attention, projected)
    past_scores = torch.matmul(query, past_key.transpose(2, 3)) + bias
    own_score = torch.sum(query * key, dim=-1, keepdim=True)
    weights = torch.softmax(torch.cat([past_scores, own_score], dim=-1), dim=-1)
    attended = torch.matmul(weights[..., :-1], past_value) + weights[..., -1:] * value
    return attention.out_proj(_merge_heads(attended, attention)), key, value


def _joined_self_attention(
    attention: BartAttention, projected: Tensor, past_key: Tensor, past_value: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same over one set of keys and values, the own ones last.

    Args:
        attention: The layer's.
        projected: Queries, keys and values of the new tokens, [R, W, 3 * H * D].
        past_key: The cache's, [R, H, C, D].
        past_value: The cache's, [R, H, C, D].
        bias: For the scores, [R, 1, W, C + W].

    Returns:
        The layer's output [R, W, M], and the new key and value [R, H, W, D].
    """
    query, key, value = _query_key_value(attention, projected)
    keys, values = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)
    attended = _attend(query, keys, values, bias)
    return attention.out_proj(_merge_heads(attended, attention)), key, value


def _query_key_value(attention: BartAttention, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled queries, keys and values, [R, H, W, D] each."""
    query, key, value = projected.split(attention.num_heads * attention.head_dim, dim=-1)
    return (
        _split_heads(query * attention.scaling, attention),
        _split_heads(key, attention),
        _split_heads(value, attention),
    )


def _cross_attention(
    layer: BartDecoderLayer, hidden: Tensor, key: Tensor, value: Tensor, bias: Tensor
) -> Tensor:
    attention: BartAttention = layer.encoder_attn
    query = _split_heads(attention.q_proj(hidden) * attention.scaling, attention)
    attended = attention.out_proj(_merge_heads(_attend(query, key, value, bias), attention))
    return layer.encoder_attn_layer_norm(hidden + attended)


def _feed_forward(layer: BartEncoderLayer | BartDecoderLayer, hidden: Tensor) -> Tensor:
    expanded = layer.activation_fn(layer.fc1(hidden))
    return layer.final_layer_norm(hidden + layer.fc2(expanded))


def _fuse_linear(parts: Sequence[nn.Linear]) -> nn.Linear:
    """One linear layer whose output is the concatenated outputs of `parts`: one product, not n."""
    fused = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts))
    with torch.no_grad():
        fused.weight.copy_(torch.cat([part.weight for part in parts]))
        fused.bias.copy_(torch.cat([part.bias for part in parts]))
    return fused


def _export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, tuple[str, ...]],
    input_axes: Mapping[str, tuple[str, ...]],
    path: Path,
) -> None:
    """Trace `module` to ONNX; an axis named "" is static."""
    axes = {**input_axes, **outputs}
    dynamic_axes = {
        name: {axis: label for axis, label in enumerate(labels) if label}
        for name, labels in axes.items()
    }
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns that it is to be replaced, and of shapes taken as constants; the
        # comparison with PyTorch on other shapes (verification.py) is the check of the latter.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dynamic_axes,
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(str(path), full_check=True)
