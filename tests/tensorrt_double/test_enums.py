"""The double's enums refuse what those of NVIDIA's bindings refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.tensorrt_double.api import MAJORS
from tests.tensorrt_double.enums import make_enum
from tests.tensorrt_double.install import installed

COLOR = make_enum("Color", {"RED": 0, "BLUE": 3})


@pytest.mark.parametrize(
    "use",
    [
        lambda: COLOR["RED"],
        lambda: list(COLOR),
        lambda: len(COLOR),
        lambda: COLOR.RED | COLOR.BLUE,
        lambda: COLOR.RED | 1,
        lambda: COLOR.RED + 1,
        lambda: 1 << COLOR.RED + 0,
        lambda: COLOR.RED < COLOR.BLUE,
    ],
)
def test_what_pybind11_refuses(use: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        use()


def test_what_pybind11_does() -> None:
    assert (int(COLOR.BLUE), COLOR.BLUE.name, COLOR.BLUE.value) == (3, "BLUE", 3)
    assert COLOR.__members__["BLUE"] is COLOR.BLUE
    assert COLOR(3) == COLOR.BLUE
    assert COLOR.BLUE != 3
    assert COLOR.RED != make_enum("Shade", {"RED": 0}).RED
    assert {COLOR.RED: "r"}[COLOR(0)] == "r"
    assert (str(COLOR.RED), repr(COLOR.RED)) == ("Color.RED", "<Color.RED: 0>")


@pytest.mark.parametrize("major", MAJORS)
def test_all_enums_of_the_double_are_of_that_kind(major: str) -> None:
    with installed(major):
        import tensorrt as trt

        for kind in (trt.TacticSource, trt.DataType, trt.BuilderFlag, trt.Logger.Severity):
            with pytest.raises(TypeError):
                kind[next(iter(kind.__members__))]
