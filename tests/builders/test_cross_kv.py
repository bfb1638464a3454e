"""Cross-attention K/V as int8: the encoder's bytes, and what the decoder makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from builders.cpu_graph import keep_beams_apart
from builders.cross_kv import channel_scales, quantize_decoder, quantize_encoder
from builders.graph_editing import rewriting
from builders.quantize_dynamic import write_dynamic
from calibration.documents import Document
from kobart_runtime import bindings
from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE
from kobart_runtime.onnxruntime_runner import OnnxRuntimeEncoder, open_session
from kobart_runtime.openvino_encoder import OpenVinoEncoder
from tests.builders.test_cpu_graph import LAYERS, OUTPUTS, feeds
from tests.tensorrt_double.plans import SHAPE

NAMES = bindings.of_layers(bindings.past_cross, SHAPE.num_decoder_layers)
KEYS = {bindings.past_cross(layer)[0] for layer in LAYERS}
PEAK_SHAPE = (SHAPE.num_heads, SHAPE.head_dim)
DOCUMENTS = [Document(tuple(range(5, 5 + length)), (1,)) for length in (3, 9, 20)]
WRITERS = {"fp32": lambda source, target: target.write_bytes(source.read_bytes())}
WRITERS["int8"] = write_dynamic


@pytest.fixture(scope="module")
def scales(tiny_graphs: Path) -> dict[str, np.ndarray]:
    return channel_scales(OnnxRuntimeEncoder(tiny_graphs / ENCODER_FILE, SHAPE), DOCUMENTS, SHAPE)


def to_bytes(states: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float[R, H, S, D] as the encoder is to give them, keys not yet turned."""
    steps = np.round(states / scale[None, :, None, :])
    return (np.clip(steps, -128, 127) + 128).astype(np.uint8)


def of_bytes(states: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (states.astype(np.float32) - 128) * scale[None, :, None, :]


def test_a_scale_is_the_largest_magnitude_of_its_channel(
    tiny_graphs: Path, scales: dict[str, np.ndarray]
) -> None:
    encoder = OnnxRuntimeEncoder(tiny_graphs / ENCODER_FILE, SHAPE)
    peaks = np.zeros((len(NAMES), *PEAK_SHAPE), np.float32)
    for document in DOCUMENTS:
        ids = np.array([document.input_ids], np.int32)
        states = np.stack(encoder.encode(ids, np.ones_like(ids)))  # [N, 1, H, S, D]
        peaks = np.maximum(peaks, np.abs(states[:, 0]).max(axis=2))
    assert list(scales) == NAMES
    for name, peak in zip(NAMES, peaks, strict=True):
        assert scales[name].dtype == np.float32
        np.testing.assert_allclose(127 * scales[name], peak, rtol=1e-6)


def test_a_channel_of_zeros_has_a_scale() -> None:
    class Silent:
        kv_dtype = np.float32

        def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
            return [np.zeros((1, SHAPE.num_heads, 4, SHAPE.head_dim), np.float32)] * len(NAMES)

        def give_back_freed(self) -> None:
            raise AssertionError("not asked for")

    found = channel_scales(Silent(), DOCUMENTS, SHAPE)
    assert all((scale > 0).all() for scale in found.values())


@pytest.mark.parametrize("engine", [OnnxRuntimeEncoder, OpenVinoEncoder])
def test_the_encoder_gives_bytes(
    engine: type, tiny_graphs: Path, scales: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / ENCODER_FILE
    quantize_encoder(tiny_graphs / ENCODER_FILE, path, scales)
    ids = np.random.default_rng(3).integers(4, SHAPE.vocab_size, (3, 11)).astype(np.int32)
    mask = (np.arange(11) < np.array([[11], [2], [7]])).astype(np.int32)
    before = engine(tiny_graphs / ENCODER_FILE, SHAPE).encode(ids, mask)
    expected = [to_bytes(each, scales[name]) for each, name in zip(before, NAMES, strict=True)]
    for name, wanted, given in zip(
        NAMES, expected, engine(path, SHAPE).encode(ids, mask), strict=True
    ):
        found = given.swapaxes(2, 3) if name in KEYS else given
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        # A product's last bits decide on which side of a half a value lies; OpenVINO computes in
        # bfloat16 where the processor can, 8 bits of which a step is.
        allowed = 1 if engine is OnnxRuntimeEncoder else 4
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= allowed, name


@pytest.mark.parametrize("precision", WRITERS)
@pytest.mark.parametrize(("num_requests", "num_beams"), [(1, 1), (3, 1), (1, 4), (3, 4)])
def test_the_decoder_reads_bytes(
    precision: str, num_requests: int, num_beams: int, tiny_graphs: Path, tmp_path: Path
) -> None:
    """Against the float decoder, which is given what the bytes stand for."""
    source, target = tmp_path / DECODER_FILE, tmp_path / "bytes.onnx"
    WRITERS[precision](tiny_graphs / DECODER_FILE, source)
    step = feeds(num_requests, num_beams)
    scales = {name: np.abs(step[name]).max(axis=(0, 2)) / np.float32(127) for name in NAMES}
    quantize_decoder(source, target, scales)
    in_bytes = {name: to_bytes(step[name], scales[name]) for name in NAMES}
    step |= {name: of_bytes(in_bytes[name], scales[name]) for name in NAMES}
    expected = open_session(source).run(OUTPUTS, step)
    step |= {
        name: in_bytes[name].swapaxes(2, 3) if name in KEYS else in_bytes[name] for name in NAMES
    }
    given = open_session(target).run(OUTPUTS, step)
    for name, one, other in zip(OUTPUTS, expected, given, strict=True):
        assert one.shape == other.shape
        # Queries and weights have 8 bits, in six products one behind the other.
        assert np.abs(other - one).max() < 0.05 * np.abs(one).max(), name


def test_a_row_that_attends_to_many_tokens_is_as_exact_as_one_that_attends_to_few(
    tiny_graphs: Path, tmp_path: Path
) -> None:
    """With one scale for all rows, 500 weights of 1/500 would be 500 times 0 or 1/255."""
    target = tmp_path / "bytes.onnx"
    step = feeds(2, 1)
    rng = np.random.default_rng(5)
    shape = (2, SHAPE.num_heads, 500, SHAPE.head_dim)
    step |= {name: rng.normal(1, 0.1, shape).astype(np.float32) for name in NAMES}
    for name in KEYS:
        step[name][0] *= 0  # the first request looks at all alike
        step[name][1] *= 50  # the second at next to one
    step[bindings.ENCODER_ATTENTION_MASK] = np.ones((2, 500), np.int32)
    scales = {name: np.abs(step[name]).max(axis=(0, 2)) / np.float32(127) for name in NAMES}
    quantize_decoder(tiny_graphs / DECODER_FILE, target, scales)
    expected = open_session(tiny_graphs / DECODER_FILE).run([bindings.LOGITS], step)[0]
    for name in NAMES:
        states = to_bytes(step[name], scales[name])
        step[name] = states.swapaxes(2, 3) if name in KEYS else states
    given = open_session(target).run([bindings.LOGITS], step)[0]
    error = np.abs(given - expected).max(axis=(1, 2))
    assert error[0] < 0.05 * np.abs(expected).max()


def test_what_is_not_seen_has_no_influence(tiny_graphs: Path, tmp_path: Path) -> None:
    """The rest of a slot holds bytes of an earlier source."""
    target = tmp_path / "bytes.onnx"
    step = feeds(3, 2)
    scales = {name: np.full(PEAK_SHAPE, 0.02, np.float32) for name in NAMES}
    quantize_decoder(tiny_graphs / DECODER_FILE, target, scales)
    hidden = step[bindings.ENCODER_ATTENTION_MASK] == 0
    assert hidden.any()
    for name in NAMES:
        states = to_bytes(step[name], scales[name])
        step[name] = states.swapaxes(2, 3) if name in KEYS else states
    session = open_session(target)
    before = session.run(OUTPUTS, step)
    for name in NAMES:
        places = hidden[:, None, None, :] if name in KEYS else hidden[:, None, :, None]
        step[name] = np.where(places, np.uint8(255), step[name])
    for one, other in zip(before, session.run(OUTPUTS, step), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tensors_keep_their_names(
    tiny_graphs: Path, scales: dict[str, np.ndarray], tmp_path: Path
) -> None:
    for name, quantize in ((ENCODER_FILE, quantize_encoder), (DECODER_FILE, quantize_decoder)):
        quantize(tiny_graphs / name, tmp_path / name, scales)
        before, after = (onnx.load(folder / name).graph for folder in (tiny_graphs, tmp_path))
        assert [t.name for t in before.input] == [t.name for t in after.input]
        assert [t.name for t in before.output] == [t.name for t in after.output]


def test_another_graph_is_refused(
    tiny_graphs: Path, scales: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / DECODER_FILE
    path.write_bytes((tiny_graphs / DECODER_FILE).read_bytes())
    with rewriting(path) as graph:
        keep_beams_apart(graph, SHAPE.num_decoder_layers)
    with pytest.raises(BuildError, match=r"no graph that builders/export\.py wrote"):
        quantize_decoder(path, tmp_path / "bytes.onnx", scales)
