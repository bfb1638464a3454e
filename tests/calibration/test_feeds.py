"""What the engines are fed: real decode steps, equal to the model's plain forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from calibration.activations import observe
from calibration.documents import Encoders, encode_pairs, pad
from calibration.feeds import by_summary, decoder_feeds, encoder_feeds, forced_steps
from kobart_documents import read_pairs
from kobart_runtime import bindings
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.calibration.conftest import Exported


def test_forced_steps_follow_the_summaries(
    exported: Exported, documents_file: Path, encoders: Encoders
) -> None:
    batch = by_summary(encode_pairs(read_pairs(documents_file), encoders).documents)
    input_ids, mask = pad([document.input_ids for document in batch])
    decoder_ids, decoder_mask = pad([document.decoder_input_ids for document in batch])
    with torch.inference_mode():
        logits = exported.model(
            input_ids=torch.from_numpy(input_ids).long(),
            attention_mask=torch.from_numpy(mask),
            decoder_input_ids=torch.from_numpy(decoder_ids).long(),
        ).logits
    best = torch.log_softmax(logits, dim=-1).max(-1).values.numpy()

    seen = 0
    for step in forced_steps(batch, OnnxRuntimeRunner(exported.folder, exported.shape)):
        num_active = int(decoder_mask[:, step.number].sum())
        answered = step.output.candidate_logprobs[:, 0, 0]
        np.testing.assert_allclose(answered, best[:num_active, step.number], atol=1e-4)
        seen += num_active
    assert seen == decoder_mask.sum()


def test_decoder_feeds_have_caches_of_several_lengths(
    exported: Exported, documents_file: Path, encoders: Encoders
) -> None:
    runner = OnnxRuntimeRunner(exported.folder, exported.shape)
    documents = encode_pairs(read_pairs(documents_file), encoders)
    key = bindings.past_self(0)[0]
    entries, seen = set(), set()
    for feed in decoder_feeds(documents, runner):
        entries.add(feed[key].shape[2])
        seen.add(int(feed[bindings.DECODER_ATTENTION_MASK].sum(-1).max()))
        assert not feed[key][:, :, max(seen) + 1 :].any()
    assert entries == {32, 64}
    assert {0, 4, 32, 40} <= seen


def test_padding_is_not_observed(
    exported: Exported, documents_file: Path, encoders: Encoders
) -> None:
    documents = encode_pairs(read_pairs(documents_file), encoders)
    tensor = "/layernorm_embedding/LayerNormalization_output_0"
    path = exported.folder / "encoder.onnx"
    rows = sum(len(values[tensor]) for values in observe(path, [tensor], encoder_feeds(documents)))
    assert rows == sum(len(document.input_ids) for document in documents.documents)
