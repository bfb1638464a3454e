"""Checkpoint -> Triton model repository; `python builders/build_all.py` is the door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builders.optimizer import TensorRTOptimizer, create_tensorrt_optimizer
    from builders.pruning import ModelPruner, create_model_pruner

__all__ = [
    "ModelPruner",
    "TensorRTOptimizer",
    "create_model_pruner",
    "create_tensorrt_optimizer",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, then: torch takes seconds, which `--help` must not wait."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("TensorRTOptimizer", "create_tensorrt_optimizer"):
        from builders import optimizer

        return getattr(optimizer, name)
    from builders import pruning

    return getattr(pruning, name)
