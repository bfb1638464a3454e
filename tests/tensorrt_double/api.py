"""The real bindings' names, and the check that a double has nothing beyond them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from tests.tensorrt_double.enums import make_enum
from tests.tensorrt_double.violation import ContractViolationError, require

FOLDER = Path(__file__).parent / "bindings"
MAJORS = ("8", "10", "11")
PROPERTY, READ_ONLY = "property", "read-only property"


def load_api(major: str) -> dict[str, Any]:
    """Classes, enums and functions of one TensorRT version's Python bindings."""
    return json.loads((FOLDER / f"{major}.json").read_text(encoding="utf-8"))


def make_enums(api: dict[str, Any]) -> dict[str, Any]:
    """Each enum with exactly the members of this version."""
    return {name: make_enum(name, members) for name, members in api["enums"].items()}


def conform(double: type, api: dict[str, Any], *, for_users: bool = False) -> type:
    """A double with the names that this version has, and no others.

    `for_users`: they derive classes from it, which have attributes of their own.

    Raises:
        ContractViolationError: A method's parameters are not those of the real one.
    """
    real = api["classes"][double.__name__]
    namespace = {
        name: value
        for name, value in vars(double).items()
        if name.startswith("_") or name in real or inspect.isclass(value)
    }
    for name, value in namespace.items():
        if not name.startswith("_") and inspect.isfunction(value):
            _check_parameters(double.__name__, name, value, real[name])
    if not for_users:
        namespace["__setattr__"] = _guarded(double.__name__, real)
    return type(double.__name__, double.__bases__, namespace)


def _check_parameters(owner: str, name: str, method: Any, overloads: list[list[str]]) -> None:
    given = list(inspect.signature(method).parameters)[1:]
    accepted = [[parameter.rstrip("?") for parameter in overload] for overload in overloads]
    # The first parameters of an overload will do where the rest of them have defaults.
    required = [len([p for p in overload if not p.endswith("?")]) for overload in overloads]
    for names, least in zip(accepted, required, strict=True):
        if len(given) >= least and given == names[: len(given)]:
            return
    raise ContractViolationError(f"{owner}.{name}{tuple(given)} is not one of {accepted}")


def _guarded(owner: str, real: dict[str, Any]) -> Any:
    """Refuse to set what the real class has no setter for."""

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if not name.startswith("_"):
            require(name in real, f"{owner} of this version has no {name}")
            require(real[name] == PROPERTY, f"{owner}.{name} is a {real[name]}")
        object.__setattr__(self, name, value)

    return set_attribute
