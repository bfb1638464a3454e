"""Enums as pybind11 makes them, which can do less than Python's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class PybindEnum:
    """Base of them: members are attributes of the class, and nothing but `__members__` lists them.

    As pybind11's (`enum_` without `arithmetic`): the class is not subscriptable, not iterable and
    has no length; a member is no number, though `int()` gives its value, and equals members of its
    own kind alone.
    """

    __members__: ClassVar[dict[str, Any]]

    def __init__(self, value: int) -> None:
        self.value = value

    @property
    def name(self) -> str:
        return next(name for name, member in self.__members__.items() if member == self)

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and int(other) == self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __repr__(self) -> str:
        return f"<{self}: {self.value}>"


def make_enum(name: str, members: Mapping[str, int]) -> Any:
    """An enum class with these members."""
    kind: Any = type(name, (PybindEnum,), {})
    made = {member: kind(value) for member, value in members.items()}
    for member, value in made.items():
        setattr(kind, member, value)
    kind.__members__ = made
    return kind


def mask_of(kind: Any) -> int:
    """A bit for each member."""
    return sum(1 << int(member) for member in kind.__members__.values())
