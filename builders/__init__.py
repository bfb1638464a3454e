"""Checkpoint -> Triton model repository; `python builders/build_all.py` is the door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builders.pruning import ModelPruner, create_model_pruner

__all__ = ["ModelPruner", "create_model_pruner"]


def __getattr__(name: str) -> Any:
    """Import pruning when it is asked for: torch takes seconds, which `--help` must not wait."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from builders import pruning

    return getattr(pruning, name)
