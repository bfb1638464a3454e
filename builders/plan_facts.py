"""What a TensorRT plan is, for the manifest: plain data that needs no TensorRT to be read."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_OPTIMIZATION_LEVEL = 5  # of TensorRT's builder
LOWEST_FIRST = ("int8", "fp16", "fp32")


@dataclass(frozen=True, kw_only=True)
class CalibrationFacts:
    """How TensorRT itself came to a plan's int8 ranges."""

    calibrator: str
    documents: str  # sha256 of their file
    num_batches: int  # 0: all ranges came from the cache
    shapes: dict[str, tuple[int, ...]]  # of every batch
    cache: str  # file name, beside the builds
    cache_sha256: str
    cache_reused: bool


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """One plan, as it was built."""

    asked: str  # precision
    tensorrt: str  # version
    strongly_typed: bool  # types from the graph; else from the builder flags
    builder_flags: tuple[str, ...]
    profiles: list[dict[str, dict[str, tuple[int, ...]]]]  # [profile][input][min, opt, max]
    layer_outputs: dict[str, int] = field(default_factory=dict)  # type -> tensors, as inspected
    kv_precision: str | None = None  # of keys and values at the border
    scratch_bytes: tuple[int, ...] = ()  # by profile; all contexts of both plans share the largest
    calibration: CalibrationFacts | None = None  # None: types and scales are the graph's
    build_seconds: float

    @property
    def precision(self) -> str | None:
        """What was asked for if some layer gives it, else the lowest that one gives.

        None where the inspector tells no types. Layers of other types are always among them.
        """
        wanted = (self.asked, *LOWEST_FIRST)
        return next((kind for kind in wanted if self.layer_outputs.get(kind)), None)
