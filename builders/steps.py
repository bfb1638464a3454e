"""The steps of a build, a line each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

NUM_STEPS = {"fp32": 5, "fp16": 6, "int8": 7}
NUM_RUNTIME_STEPS = {
    "tensorrt": 2,
    "prepared": 0,
    "onnxruntime": 1,
    "torchscript": 0,
}  # beside them
NUM_PLAN_INT8_STEPS = 1  # what is not int8 becomes float16
NUM_CPU_INT8_STEPS = 1  # the encoder's engine is chosen
NUM_CROSS_KV_STEPS = 2  # int8 keys and values are tried


class Steps:
    """Counts the steps of a build, and says of each how long it took."""

    def __init__(self, precision: str, runtime: str, *, tries_cross_int8: bool) -> None:
        self._total = NUM_STEPS[precision] + NUM_RUNTIME_STEPS[runtime]
        if (precision, runtime) == ("int8", "onnxruntime"):
            self._total += NUM_CPU_INT8_STEPS
            self._total += NUM_CROSS_KV_STEPS if tries_cross_int8 else 0
        if precision == "int8" and runtime in ("tensorrt", "prepared"):
            self._total += NUM_PLAN_INT8_STEPS
        self._done = 0

    @contextmanager
    def __call__(self, text: str) -> Iterator[None]:
        """Announce a step, and tell its seconds or its failure."""
        self._done += 1
        with _timed(f"[{self._done}/{self._total}] {text}"):
            yield


@contextmanager
def _timed(text: str) -> Iterator[None]:
    print(f"{text} ...", end=" ", flush=True)
    started = time.perf_counter()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.perf_counter() - started:.1f} s", flush=True)
