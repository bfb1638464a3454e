"""The CUDA double has the names and parameters of the real bindings, where those are installed."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tests.tensorrt_double.cuda_runtime import FUNCTIONS, VALUES, CudaRuntimeDouble


@pytest.fixture(scope="module")
def real() -> Any:
    return pytest.importorskip("cuda.bindings.runtime")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_as_many_arguments(real: Any, name: str) -> None:
    signature = (getattr(real, name).__doc__ or "").strip().splitlines()[0]
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    ours = inspect.signature(getattr(CudaRuntimeDouble, name)).parameters
    assert len(ours) - 1 == len([part for part in inside.split(",") if part.strip()])


@pytest.mark.parametrize("name", VALUES)
def test_enums_and_structures_have_the_same_members(real: Any, name: str) -> None:
    double, theirs = VALUES[name], getattr(real, name)
    if isinstance(double, int):
        assert theirs == double
    elif hasattr(double, "__members__"):
        for member, value in double.__members__.items():
            assert int(getattr(theirs, member)) == value
    else:
        assert all(hasattr(theirs(), field) for field in vars(double()))


def test_a_stream_is_a_number(real: Any) -> None:
    """TensorRT takes a stream as the integer that its handle is."""
    assert int(real.cudaStream_t(21504)) == 21504
