"""The double's builder configuration: flags, profiles, limits, and who calibrates."""

from __future__ import annotations

from typing import Any

from tests.tensorrt_double.enums import mask_of
from tests.tensorrt_double.violation import require


def configuration_class(trt: Any) -> type:
    """The double of IBuilderConfig over a module `trt`, whose enums it uses."""

    class IBuilderConfig:
        def __init__(self) -> None:
            self._flags: set[Any] = set()
            self._pools: dict[Any, int] = {}
            self._profiles: list[Any] = []
            self._cache: Any = None
            self._calibrator: Any = None
            self._calibration_profile: Any = None
            self._tactic_sources = mask_of(trt.TacticSource)
            self.builder_optimization_level = 3
            self.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
            self.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
            self.DLA_core = -1
            self.default_device_type = trt.DeviceType.GPU

        @property
        def num_optimization_profiles(self) -> int:
            return len(self._profiles)

        def set_flag(self, flag: Any) -> None:
            require(isinstance(flag, trt.BuilderFlag), f"{flag!r} is no builder flag")
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(flag)

        def get_flag(self, flag: Any) -> bool:
            return flag in self._flags

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            require(isinstance(pool, trt.MemoryPoolType), f"{pool!r} is no memory pool")
            require(isinstance(pool_size, int) and pool_size >= 0, f"pool of {pool_size} bytes")
            self._pools[pool] = pool_size

        def get_memory_pool_limit(self, pool: Any) -> int:
            return self._pools.get(pool, 0)

        def add_optimization_profile(self, profile: Any) -> int:
            require(isinstance(profile, trt.IOptimizationProfile), f"{profile!r} is no profile")
            self._profiles.append(profile)
            return len(self._profiles) - 1

        @property
        def int8_calibrator(self) -> Any:
            return self._calibrator

        @int8_calibrator.setter
        def int8_calibrator(self, calibrator: Any) -> None:
            self._calibrator = calibrator

        def set_calibration_profile(self, profile: Any) -> bool:
            require(isinstance(profile, trt.IOptimizationProfile), f"{profile!r} is no profile")
            self._calibration_profile = profile
            return True

        def get_calibration_profile(self) -> Any:
            return self._calibration_profile

        def set_tactic_sources(self, tactic_sources: int) -> bool:
            known = mask_of(trt.TacticSource)
            require(tactic_sources & ~known == 0, f"tactic sources {tactic_sources:b}")
            self._tactic_sources = tactic_sources
            return True

        def get_tactic_sources(self) -> int:
            return self._tactic_sources

        def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
            return trt.ITimingCache(bytes(serialized_timing_cache))

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

    return IBuilderConfig
