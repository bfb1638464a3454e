"""The decode step's two ways of attending to cache and own tokens are one model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from kobart_runtime.model_config import DECODER_FILE
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.kobart_runtime.test_tensorrt_runner import step_inputs
from tests.tensorrt_double.plans import SHAPE, export_tiny


@pytest.fixture(scope="module")
def joined_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joined")
    export_tiny(folder, joined=True)
    return folder


@pytest.mark.parametrize(("num_requests", "num_beams"), [(1, 1), (2, 3), (5, 4)])
def test_own_tokens_joined_to_the_cache_give_the_same_logits(
    tiny_graphs: Path, joined_graphs: Path, num_requests: int, num_beams: int
) -> None:
    """Beams that see different entries, over several steps: no beam sees another's own token."""
    ids = np.arange(num_requests * 9, dtype=np.int32).reshape(num_requests, 9) % SHAPE.vocab_size
    mask = np.ones_like(ids)
    mask[0, 4:] = 0
    outputs = []
    for folder in (tiny_graphs, joined_graphs):
        runner = OnnxRuntimeRunner(folder, SHAPE)
        encoded = runner.encode(ids, mask)
        cache = runner.new_cache(num_requests, 32, 64)
        for row in range(num_requests):
            cache.put(row, encoded, row, int(mask[row].sum()))
        steps = [step_inputs(num_requests, num_beams, 32, step) for step in range(4)]
        outputs.append([runner.decode_step(cache, step, want_logits=True) for step in steps])
    for plain, joined in zip(*outputs, strict=True):
        np.testing.assert_allclose(joined.logits, plain.logits, atol=1e-4)
        np.testing.assert_array_equal(joined.candidate_ids, plain.candidate_ids)


def test_only_the_joined_layout_copies_the_cache(tiny_graphs: Path, joined_graphs: Path) -> None:
    """CPUs get no copy of keys and values."""
    joining = []
    for folder in (tiny_graphs, joined_graphs):
        graph = onnx.load(folder / DECODER_FILE).graph
        read = [name for node in graph.node if node.op_type == "Concat" for name in node.input]
        joining.append(sum(name.startswith("past_key_values.") for name in read))
    assert joining == [0, 2 * SHAPE.num_decoder_layers]
