"""What a TensorRT plan is, for the manifest: plain data that needs no TensorRT to be read."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_OPTIMIZATION_LEVEL = 5  # of TensorRT's builder


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """One plan, as it was built."""

    tensorrt: str  # version
    strongly_typed: bool  # types from the graph; else from the builder flags
    builder_flags: tuple[str, ...]
    profiles: list[dict[str, dict[str, tuple[int, ...]]]]  # [profile][input][min, opt, max]
    layer_outputs: dict[str, int] = field(default_factory=dict)  # type -> tensors, as inspected
    build_seconds: float
