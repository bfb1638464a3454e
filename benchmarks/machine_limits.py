"""What a machine can do at best: bytes a second from memory, operations a second in products."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from kobart_runtime.onnxruntime_runner import run_session

_BLOCK = 32768  # numbers that a thread works on at a time: their intermediate stays in its cache
_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]


def bandwidth_gb_s(array_mb: int, num_calls: int, num_threads: int) -> dict[str, float]:
    """Of all cores together, the best of some calls; bytes are counted as STREAM does.

    STREAM (McCalpin 1995): copy a = b reads and writes 16 bytes a number, triad a = b + s c 24.
    `read` is a scalar product, which writes nothing: what a decode step mostly does.

    Args:
        array_mb: Of each of three arrays.
        num_calls: Of each kind.
        num_threads: Each has its part of the arrays.
    """
    size = array_mb * 1_000_000 // 8 // num_threads
    parts = [[np.full(size, value) for value in (1.0, 2.0, 0.5)] for _ in range(num_threads)]
    kinds: dict[str, tuple[int, Callable[[list[np.ndarray]], object]]] = {
        "copy": (16, _copy),
        "triad": (24, _triad),
        "read": (16, _read),
    }
    found = {}
    with ThreadPoolExecutor(num_threads) as threads:
        for name, (num_bytes, work) in kinds.items():
            seconds = _best_s(partial(_on_all, threads, work, parts), num_calls)
            found[name] = num_bytes * size * num_threads / seconds / 1e9
    return found


def operations_gop_s(matrix_size: int, num_calls: int) -> dict[str, float]:
    """Of ONNX Runtime's products of square matrices, 2 n^3 operations each."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (matrix_size, matrix_size), dtype=np.int8)
    scale = np.array(0.01, np.float32)
    floats = rng.random((matrix_size, matrix_size), dtype=np.float32)
    small = rng.integers(0, 255, (matrix_size, matrix_size), dtype=np.uint8)
    products: dict[str, tuple[np.ndarray, list[np.ndarray], int]] = {
        "MatMul": (floats, [weights.astype(np.float32)], TensorProto.FLOAT),
        "MatMulInteger": (small, [weights], TensorProto.INT32),
        "DynamicQuantizeMatMul": (floats, [weights, scale], TensorProto.FLOAT),
    }
    found = {}
    for operator, (values, constants, output) in products.items():
        graph = _product(operator, values, constants, output)
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        seconds = _best_s(partial(run_session, session, ["y"], {"x": values}), num_calls)
        found[operator] = 2 * matrix_size**3 / seconds / 1e9
    return found


def _product(operator: str, values: np.ndarray, constants: list[np.ndarray], output: int) -> bytes:
    """A graph of one product with a constant matrix, serialised."""
    names = [f"constant_{index}" for index in range(len(constants))]
    domain = "com.microsoft" if operator == "DynamicQuantizeMatMul" else ""
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", *names], ["y"], domain=domain)],
        operator,
        [helper.make_tensor_value_info("x", kind, values.shape)],
        [helper.make_tensor_value_info("y", output, values.shape)],
        [numpy_helper.from_array(each, name) for each, name in zip(constants, names, strict=True)],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=_OPSETS, ir_version=8)
    return bytes(model.SerializeToString())


def _best_s(work: Callable[[], object], num_calls: int) -> float:
    """Seconds of the fastest call, after one that is not counted."""
    work()
    taken = []
    for _ in range(num_calls):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def _on_all(
    threads: ThreadPoolExecutor,
    work: Callable[[list[np.ndarray]], object],
    parts: list[list[np.ndarray]],
) -> None:
    list(threads.map(work, parts))


def _copy(arrays: list[np.ndarray]) -> None:
    a, b, _ = arrays
    np.copyto(a, b)


def _triad(arrays: list[np.ndarray]) -> None:
    """Block by block: numpy needs two operations, and the second must find the first's in cache."""
    a, b, c = arrays
    for start in range(0, len(a), _BLOCK):
        block = slice(start, start + _BLOCK)
        np.multiply(c[block], 3.0, out=a[block])
        np.add(a[block], b[block], out=a[block])


def _read(arrays: list[np.ndarray]) -> None:
    _, b, c = arrays
    for start in range(0, len(b), _BLOCK):  # small enough for numpy to stay in its own thread
        block = slice(start, start + _BLOCK)
        np.dot(b[block], c[block])
