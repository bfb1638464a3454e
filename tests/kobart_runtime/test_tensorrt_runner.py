"""The TensorRT runner on the contract doubles: its bookkeeping, never its speed.

The double computes with ONNX Runtime on the same graphs, so the summaries must be those of the
ONNX Runtime runner: every copy to, from and on the device has then been to the right place. No
GPU is involved, and nothing here says that a plan has run on one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kobart_runtime.cuda_device import CudaDevice
from kobart_runtime.device_kv_cache import DeviceKvCache, KvBlock
from kobart_runtime.errors import EngineError
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import ModelConfig, TokenIds, TokenizerConfig
from kobart_runtime.model_runner import ModelRunner, StepInputs
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner
from kobart_runtime.request import Request
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings
from kobart_runtime.tensorrt_runner import TensorRtRunner
from tests.fakes import RecordingListener
from tests.tensorrt_double.api import MAJORS
from tests.tensorrt_double.cuda_runtime import CudaRuntimeDouble
from tests.tensorrt_double.install import installed
from tests.tensorrt_double.plan import Plan
from tests.tensorrt_double.plans import LIMITS, SHAPE, build_tiny_plans, export_tiny

IDS = TokenIds(bos=0, eos=(1,), pad=3, decoder_start=2, forced_eos=1)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    export_tiny(folder)
    return folder


@pytest.fixture(params=MAJORS)
def cuda(request: pytest.FixtureRequest) -> Iterator[CudaRuntimeDouble]:
    """The doubles of one TensorRT version, installed."""
    with installed(request.param) as cuda:
        yield cuda


@pytest.fixture(scope="session")
def joined_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What TensorRT's plans are made from: the same model in TensorRT's layout."""
    folder = tmp_path_factory.mktemp("joined")
    export_tiny(folder, joined=True)
    return folder


@pytest.fixture
def plans(cuda: CudaRuntimeDouble, joined_graphs: Path, tmp_path: Path) -> Path:
    build_tiny_plans(joined_graphs, tmp_path)
    return tmp_path


def generate(runner: ModelRunner, requests: list[tuple[list[int], GenerationSettings]]) -> list:
    config = ModelConfig(
        name="tiny",
        runtime="tensorrt",
        encoder_engine="tensorrt",
        precision="fp32",
        ids=IDS,
        shape=SHAPE,
        tokenizer=TokenizerConfig(),
        limits=LIMITS,
        defaults=GenerationSettings(),
        artefacts={},
    )
    loop = GenerationLoop(runner, config, Metrics())
    listeners = [RecordingListener() for _ in requests]
    for (source, settings), listener in zip(requests, listeners, strict=True):
        loop.submit(Request(np.array(source, np.int32), settings, listener))
    results: list[Generated] = [listener.result() for listener in listeners]
    loop.close()
    return results


def random_requests(count: int) -> list[tuple[list[int], GenerationSettings]]:
    rng = random.Random(7)
    return [
        (
            [rng.randrange(SHAPE.vocab_size) for _ in range(rng.choice([1, 5, 40, 100, 150]))],
            GenerationSettings(
                num_beams=rng.choice([1, 1, 2, 4]),
                max_new_tokens=rng.choice([1, 8, 20]),
                no_repeat_ngram_size=rng.choice([0, 2]),
                repetition_penalty=rng.choice([1.0, 1.3]),
            ),
        )
        for _ in range(count)
    ]


def test_summaries_are_those_of_onnx_runtime(
    cuda: CudaRuntimeDouble, plans: Path, graphs: Path
) -> None:
    requests = random_requests(24)
    runner = TensorRtRunner(plans, SHAPE)
    assert generate(runner, requests) == generate(OnnxRuntimeRunner(graphs, SHAPE), requests)
    assert cuda.num_captures > 0
    assert cuda.num_launches > cuda.num_captures


def test_device_memory_is_given_back(cuda: CudaRuntimeDouble, plans: Path) -> None:
    runner = TensorRtRunner(plans, SHAPE)
    before = cuda.num_allocations
    generate(runner, random_requests(6))
    assert cuda.num_allocations == before


def test_all_contexts_share_one_scratch_buffer(
    cuda: CudaRuntimeDouble, plans: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = [Plan.read((plans / name).read_bytes()) for name in ("encoder.plan", "decoder.plan")]
    needed = [plan.scratch_bytes(i) for plan in made if plan for i in range(len(plan.profiles))]
    assert len(needed) > 2
    with caplog.at_level("INFO"):
        runner = TensorRtRunner(plans, SHAPE)
    others = [*runner._buffers._on_device.values(), runner._buffers._present]
    assert cuda.device_bytes == max(needed) + sum(buffer.num_bytes for buffer in others)
    assert f"shared by {len(needed)} execution contexts" in caplog.text


def test_too_little_memory_for_scratch_is_refused_with_both_figures(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CudaDevice, "free_bytes", lambda device: 1 << 18)
    with pytest.raises(EngineError, match=r"the plans need \d+ MiB of scratch memory, 0 MiB of"):
        TensorRtRunner(plans, SHAPE)


def step_inputs(num_requests: int, num_beams: int, num_entries: int, step: int) -> StepInputs:
    """Each beam sees its own entries of the steps before; odd slots use them in reverse order."""
    entries = np.tile(np.arange(num_beams), (num_requests, 1))
    entries[1::2] = entries[1::2, ::-1]
    visible = np.zeros((num_requests, num_beams, num_entries), np.int32)
    for slot, beam in np.ndindex(num_requests, num_beams):
        visible[slot, beam, entries[slot, beam] : step * num_beams : num_beams] = 1
    tokens = 5 + 7 * np.arange(num_requests * num_beams).reshape(num_requests, num_beams)
    return StepInputs(
        decoder_input_ids=((tokens + step) % SHAPE.vocab_size).astype(np.int32),
        position_ids=np.full((num_requests, 1), step, np.int32),
        decoder_attention_mask=visible,
        new_entries=entries + step * num_beams,
    )


@pytest.mark.parametrize(("num_requests", "num_beams"), [(1, 1), (3, 2), (6, 4)])
def test_steps_equal_those_of_onnx_runtime(
    plans: Path, graphs: Path, num_requests: int, num_beams: int
) -> None:
    ids = np.arange(num_requests * 9, dtype=np.int32).reshape(num_requests, 9) % SHAPE.vocab_size
    mask = np.ones_like(ids)
    mask[0, 4:] = 0
    outputs = []
    runners: list[ModelRunner] = [
        TensorRtRunner(plans, SHAPE),
        OnnxRuntimeRunner(graphs, SHAPE),
    ]
    for runner in runners:
        encoded = runner.encode(ids, mask)
        cache = runner.new_cache(8, 32, 64)
        for row in range(num_requests):
            cache.put(row, encoded, row, int(mask[row].sum()))
        outputs.append(
            [
                runner.decode_step(
                    cache,
                    step_inputs(num_requests, num_beams, 32, step),
                    want_logits=step != 2,
                )
                for step in range(5)
            ]
        )
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_allclose(ours.candidate_logprobs, theirs.candidate_logprobs, atol=1e-5)
        np.testing.assert_array_equal(ours.candidate_ids, theirs.candidate_ids)
        assert (ours.logits is None) == (theirs.logits is None)
        if ours.logits is not None:
            np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-4)


def test_a_shape_outside_the_profiles_is_refused(plans: Path) -> None:
    runner = TensorRtRunner(plans, SHAPE)
    ids = np.ones((1, LIMITS.max_source_length + 1), np.int32)
    with pytest.raises(EngineError, match="no optimization profile of the plan accepts"):
        runner.encode(ids, ids)
    with pytest.raises(EngineError, match="a step of 7 requests, the plan and the cache take 6"):
        runner.decode_step(runner.new_cache(8, 32, 64), step_inputs(7, 1, 32, 0), want_logits=False)


def test_a_file_that_is_no_plan_is_refused(plans: Path) -> None:
    (plans / "decoder.plan").write_bytes(b"no plan")
    with pytest.raises(EngineError, match=r"decoder\.plan is not for TensorRT .*: build again"):
        TensorRtRunner(plans, SHAPE)


def test_the_cache_keeps_what_still_fits(cuda: CudaRuntimeDouble, plans: Path) -> None:
    runner = TensorRtRunner(plans, SHAPE)
    cache = runner.new_cache(2, 32, 64)
    assert isinstance(cache, DeviceKvCache)
    ids = np.ones((2, 50), np.int32)
    cache.put(1, runner.encode(ids, ids), 0, 50)
    before = read(cuda, cache.cross_kv)
    cache.move(1, 0)
    cache.resize(1, 4, 64, 128)
    after = read(cuda, cache.cross_kv)
    assert before[:, 1].any()
    np.testing.assert_array_equal(after[:, 0, :, :50], before[:, 1, :, :50])
    assert not after[:, 1:].any()
    assert not after[:, :, :, 50:].any()


def read(cuda: CudaRuntimeDouble, block: KvBlock) -> np.ndarray:
    """A block's tensors, [T, R, H, L, D]."""
    block.device.synchronize()
    num_bytes = int(np.prod(block.shape[1:])) * block.itemsize
    tensors = [cuda.view(block.address(i), num_bytes).copy() for i in range(block.shape[0])]
    return np.stack(tensors).view(np.float32).reshape(block.shape)


def test_a_cache_without_memory_to_grow_has_not_changed(
    cuda: CudaRuntimeDouble, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = TensorRtRunner(plans, SHAPE)
    cache = runner.new_cache(2, 32, 64)
    assert isinstance(cache, DeviceKvCache)
    ids = np.ones((1, 50), np.int32)
    cache.put(0, runner.encode(ids, ids), 0, 50)
    before = cache.self_kv, cache.cross_kv, cache.encoder_attention_mask
    contents = read(cuda, cache.cross_kv)
    real, sizes = CudaDevice.allocate, []

    def allocate(device: CudaDevice, num_bytes: int) -> int:
        sizes.append(num_bytes)
        if len(sizes) == 2:
            raise EngineError("cudaMalloc failed: cudaErrorMemoryAllocation (2)")
        return real(device, num_bytes)

    monkeypatch.setattr(CudaDevice, "allocate", allocate)
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        cache.resize(1, 4, 64, 128)
    assert (cache.self_kv, cache.cross_kv, cache.encoder_attention_mask) == before
    assert (cache.num_slots, cache.num_entries, cache.source_len) == (2, 32, 64)
    np.testing.assert_array_equal(read(cuda, cache.cross_kv), contents)


def test_free_memory_is_the_devices(plans: Path) -> None:
    runner = TensorRtRunner(plans, SHAPE)
    free = runner.free_bytes()
    cache = runner.new_cache(2, 32, 64)
    assert free - runner.free_bytes() >= cache.entry_bytes * 2 * (32 + 64)
