"""What the doubles raise when they are used as the real libraries must not be."""

from __future__ import annotations


class ContractViolationError(AssertionError):
    """A call that the documented API does not allow; a defect of the code under test."""


def require(condition: object, message: str) -> None:
    if not condition:
        raise ContractViolationError(message)
