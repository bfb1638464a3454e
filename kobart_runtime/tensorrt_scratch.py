"""Scratch memory of TensorRT's execution contexts, given from outside, in every version since 8.6.

By default TensorRT gives each context as much as the most demanding profile of its plan takes.
"""

from __future__ import annotations

from typing import Any

from kobart_runtime.cuda_device import DeviceBuffer


def scratch_bytes(engine: Any) -> tuple[int, ...]:
    """Bytes that a run takes under each optimization profile.

    TensorRT 8.6 tells the largest alone, which then stands for every profile.
    """
    profiles = range(engine.num_optimization_profiles)
    if hasattr(engine, "get_device_memory_size_for_profile_v2"):
        return tuple(int(engine.get_device_memory_size_for_profile_v2(i)) for i in profiles)
    return tuple(int(engine.device_memory_size) for _ in profiles)


def new_context(trt: Any, engine: Any) -> Any:
    """An execution context without scratch memory; None if TensorRT made none.

    Args:
        trt: The `tensorrt` module.
        engine: Of that module.
    """
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is None:  # 8.6
        return engine.create_execution_context_without_device_memory()
    return engine.create_execution_context(strategies.USER_MANAGED)


def give_scratch(context: Any, buffer: DeviceBuffer) -> None:
    """Let a context of `new_context` work in a buffer."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(buffer.pointer, buffer.num_bytes)
    else:  # 8.6
        context.device_memory = buffer.pointer
