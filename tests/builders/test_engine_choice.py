"""Which runtime a build takes, and what a GPU can do; no GPU is asked here."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from builders import runtime_choice
from builders.config import BuildConfig, read_yaml
from builders.gpu import Gpu, probe_gpu
from builders.runtime_choice import choose_runtime, missing_packages
from kobart_runtime.errors import BuildError, ConfigError
from tests.conftest import REPOSITORY
from tests.tensorrt_double.install import installed


def gpu(major: int = 8, minor: int = 6) -> Gpu:
    return Gpu(
        name="GPU", compute_capability=(major, minor), memory_bytes=1 << 34, cuda_version="12.4"
    )


class Driver:
    """libcuda with one GPU of compute capability 7.5, or with an error."""

    def __init__(self, *, count: int = 1, error: int = 0) -> None:
        self._count, self._error = count, error

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._error

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._count
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        name.value = b"Tesla T4"
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:  # noqa: N802
        size._obj.value = 15 << 30
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12040
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 7, 76: 5}[attribute]
        return 0


def test_a_gpu_is_described() -> None:
    found = probe_gpu(Driver())
    assert found == Gpu(
        name="Tesla T4", compute_capability=(7, 5), memory_bytes=15 << 30, cuda_version="12.4"
    )
    assert found.capability == "7.5"


@pytest.mark.parametrize(
    ("driver", "message"),
    [(Driver(error=100), "cuInit gives CUDA error 100"), (Driver(count=0), "shows no GPU")],
)
def test_no_gpu(driver: Driver, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        probe_gpu(driver)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builders.gpu.DRIVER_LIBRARY", "libno-such-driver.so")
    with pytest.raises(BuildError, match="there is no NVIDIA driver"):
        probe_gpu()


@pytest.mark.parametrize(
    ("capability", "precision", "message"),
    [
        ((5, 2), "fp32", r"compute capability 5\.2, TensorRT needs 6\.0"),
        ((6, 1), "fp16", r"no fast fp16: take --precision fp32"),
        ((6, 0), "int8", r"no fast int8"),
    ],
)
def test_what_a_gpu_cannot_do_is_refused(
    capability: tuple[int, int], precision: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        gpu(*capability).check(precision)
    gpu(8, 0).check(precision)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(found: Gpu | None, missing: list[str]) -> None:
        monkeypatch.setattr(runtime_choice, "find_gpu", lambda: found)
        monkeypatch.setattr(runtime_choice, "missing_packages", lambda: missing)

    return make


def test_auto_takes_tensorrt_where_all_is_there(machine: Any) -> None:
    machine(gpu(), [])
    assert choose_runtime("auto", "fp16").runtime == "tensorrt"
    assert choose_runtime("tensorrt", "fp16").gpu == gpu()
    assert choose_runtime("onnxruntime", "fp16").gpu is None


def test_a_gpu_that_cannot_is_passed_over_unless_asked_for(machine: Any) -> None:
    machine(gpu(6, 1), [])
    choice = choose_runtime("auto", "fp16")
    assert choice.runtime == "onnxruntime"
    assert "no fast fp16" in choice.reason
    with pytest.raises(ConfigError, match="no fast fp16"):
        choose_runtime("tensorrt", "fp16")


@pytest.mark.parametrize(
    ("found", "missing", "lacks"),
    [
        (None, [], "an NVIDIA GPU that answers its driver"),
        (gpu(), ["TensorRT"], "TensorRT"),
        (None, ["TensorRT", "cuda-python"], "TensorRT and cuda-python and an NVIDIA GPU"),
    ],
)
def test_what_is_missing_is_said(
    machine: Any, found: Gpu | None, missing: list[str], lacks: str
) -> None:
    machine(found, missing)
    choice = choose_runtime("auto", "fp32")
    assert choice.runtime == "onnxruntime"
    assert choice.reason.startswith(f"auto: this machine lacks {lacks}")
    with pytest.raises(ConfigError, match=f"--runtime tensorrt: this machine lacks {lacks}"):
        choose_runtime("tensorrt", "fp32")


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        (["tensorrt"], ["TensorRT (pip install tensorrt)"]),
        (["polygraphy"], ["polygraphy (pip install polygraphy)"]),
        (["cuda.bindings.runtime"], ["cuda-python (pip install cuda-python)"]),
        ([], []),
    ],
)
def test_only_what_is_missing_is_called_missing(
    monkeypatch: pytest.MonkeyPatch, lacking: list[str], said: list[str]
) -> None:
    with installed("10"):
        for name in lacking:
            monkeypatch.setitem(sys.modules, name, None)
        found = missing_packages()
        monkeypatch.undo()
    assert found == said


def test_the_example_configuration_is_one() -> None:
    path = REPOSITORY / "configs" / "inference" / "tensorrt.yaml"
    config = BuildConfig(**read_yaml(path))
    assert (config.runtime, config.precision, config.workspace_mib) == ("tensorrt", "fp16", None)
