"""Put the doubles where `import tensorrt` and `from cuda.bindings import runtime` find them."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.tensorrt_double.api import conform, load_api, make_enums
from tests.tensorrt_double.building import building_classes
from tests.tensorrt_double.calibrating import calibrating_classes
from tests.tensorrt_double.cuda_runtime import CudaRuntimeDouble
from tests.tensorrt_double.running import running_classes

REPLACED = ("tensorrt", "cuda")
# The members of DataType go by these names too (tensorrt/__init__.py and its dtype helpers).
TYPE_NAMES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
# They keep the `tensorrt` they saw first.
RELOADED = ("polygraphy", "builders.engine", "builders.tensorrt_calibrator")


def make_tensorrt(major: str, cuda: CudaRuntimeDouble) -> Any:
    """A `tensorrt` module with the names of one version."""
    api = load_api(major)
    module: Any = types.ModuleType("tensorrt")
    module.__version__ = api["version"]
    for name, kind in make_enums(api).items():
        setattr(module, name, kind)
    for member in module.DataType.__members__.values():
        setattr(module, TYPE_NAMES.get(member.name, member.name.lower()), member)
    module.init_libnvinfer_plugins = lambda logger, namespace: True
    for double in (*building_classes(module, major, cuda), *running_classes(module, cuda)):
        for_users = double.__name__ == "ILogger"
        setattr(module, double.__name__, conform(double, api, for_users=for_users))
    for double in calibrating_classes():
        if double.__name__ in api["classes"]:  # 11 has none
            setattr(module, double.__name__, conform(double, api, for_users=True))
    return module


@contextmanager
def installed(major: str) -> Iterator[CudaRuntimeDouble]:
    """Both doubles in `sys.modules`, for one version of TensorRT; the old modules come back."""
    cuda = CudaRuntimeDouble()
    saved = {name: module for name, module in sys.modules.items() if _is_concerned(name)}
    _forget()
    bindings = types.ModuleType("cuda.bindings")
    bindings.__dict__["runtime"] = cuda.module()
    sys.modules.update(
        {
            "tensorrt": make_tensorrt(major, cuda),
            "cuda": types.ModuleType("cuda"),
            "cuda.bindings": bindings,
            "cuda.bindings.runtime": bindings.__dict__["runtime"],
        }
    )
    try:
        yield cuda
    finally:
        _forget()
        sys.modules.update(saved)


def _forget() -> None:
    for name in [name for name in sys.modules if _is_concerned(name)]:
        del sys.modules[name]


def _is_concerned(name: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in (*REPLACED, *RELOADED))
