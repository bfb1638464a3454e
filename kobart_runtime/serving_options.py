"""What may be changed where a build is served, without another build: its limits, its threads.

Each option is an environment variable of the server, so that any tritonserver takes it;
`kobart-serve` has flags of the same names, which set the variables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from kobart_runtime.errors import ConfigError
from kobart_runtime.host_cpus import HostCpus
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.settings import Limits

_PREFIX = "KOBART_"
_LIMIT_PREFIX = "KOBART_MAX_"  # a variable that begins so and is not known is a mistake
_MAX_THREADS = 1024


def _option(kind: type[int] | type[float], help_text: str, metavar: str = "N") -> Any:
    return field(default=None, metadata={"kind": kind, "help": help_text, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """Values for this server; None leaves what the build says."""

    max_queue_size: int | None = _option(int, "waiting requests; one more is refused at once")
    max_batch_size: int | None = _option(
        int, "requests decoded together; with TensorRT at most what the plans were built for"
    )
    max_cache_mib: int | None = _option(
        int,
        "memory of each model for keys and values; without it and without one in the build: half "
        "of what is free at the load, shared by the models of the server",
        "MIB",
    )
    max_request_seconds: float | None = _option(
        float, "from arrival to the last response", "SECONDS"
    )
    max_input_bytes: int | None = _option(int, "UTF-8 bytes of one text")
    threads: int | None = _option(
        int,
        "CPU threads of each engine; default: one per physical core that the process may use, "
        "and no more than the CPU quota of its container",
    )
    num_models: int | None = _option(int, "front models that share the free memory")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ServingOptions:
        """Read the options; an empty variable counts as none.

        Raises:
            ConfigError: A value is out of range, or a `KOBART_MAX_` variable is no option.
        """
        known = {variable_of(name): name for name in OPTION_NAMES}
        unknown = sorted(v for v in environment if v.startswith(_LIMIT_PREFIX) and v not in known)
        if unknown:
            raise ConfigError(
                f"{', '.join(unknown)} cannot be set for a server: valid are {', '.join(known)}; "
                "all else is fixed by kobart-build"
            )
        given: dict[str, Any] = {
            name: read_option(name, environment[variable], variable)
            for variable, name in known.items()
            if environment.get(variable)
        }
        return cls(**given)

    def limits_for(self, config: ModelConfig) -> Limits:
        """A build's limits with these in their place.

        Raises:
            ConfigError: The build's engines cannot do one of them.
        """
        most = config.limits.max_batch_size
        if config.runtime == "tensorrt" and self.max_batch_size and self.max_batch_size > most:
            raise ConfigError(
                f"{variable_of('max_batch_size')} is {self.max_batch_size}, the TensorRT plans of "
                f"this build take up to {most} requests: lower it, or build with --max-batch-size "
                f"{self.max_batch_size}"
            )
        return replace(config.limits, **self._limits())

    def num_threads(self, cpus: HostCpus) -> int:
        """Threads of each engine; 0 leaves the choice to the engine's library."""
        return self.threads or cpus.limited_threads

    def describe(self, config: ModelConfig, cpus: HostCpus, max_cache_bytes: int) -> str:
        """What is in force, for the log.

        Args:
            config: The build's, as it was before `limits_for`.
            cpus: What the process may use of the machine.
            max_cache_bytes: What keys and values may take.
        """
        limits = self.limits_for(config)
        parts = []
        for name in ("max_batch_size", "max_queue_size", "max_request_seconds", "max_input_bytes"):
            built = getattr(config.limits, name)
            own = "" if getattr(self, name) in (None, built) else f" (build: {built:.12g})"
            parts.append(f"{name} {getattr(limits, name):.12g}{own}")
        parts.append(f"max_cache_mib {max_cache_bytes >> 20} ({self._cache_reason(config.limits)})")
        if config.runtime != "tensorrt":
            parts.append(self._threads_and_reason(cpus))
        return ", ".join(parts)

    def _cache_reason(self, built: Limits) -> str:
        if self.max_cache_mib:
            return f"build: {built.max_cache_mib or 'half of the free memory'}"
        if built.max_cache_mib:
            return "as built"
        if (self.num_models or 1) == 1:
            return "half of the free memory"
        return f"half of the free memory, shared by {self.num_models} models"

    def _threads_and_reason(self, cpus: HostCpus) -> str:
        if self.threads:
            return f"threads {self.threads} (as asked for)"
        if not cpus.limited_threads:
            return f"threads {cpus.num_cores} (one per physical core)"
        quota = "" if math.isinf(cpus.quota) else f", a quota of {cpus.quota:.12g} CPUs"
        return (
            f"threads {cpus.limited_threads} ({cpus.num_allowed_cores} of {cpus.num_cores} cores "
            f"allowed{quota})"
        )

    def _limits(self) -> dict[str, Any]:
        """Those that are limits of a build, where given."""
        names = [each.name for each in fields(Limits) if each.name in OPTION_NAMES]
        return {name: value for name in names if (value := getattr(self, name)) is not None}


OPTION_NAMES = tuple(each.name for each in fields(ServingOptions))


def variable_of(name: str) -> str:
    """The environment variable of an option."""
    return _PREFIX + name.upper()


def read_option(name: str, text: str, called: str) -> int | float:
    """An option's value from its text.

    Args:
        name: The option's.
        text: What was given.
        called: How whoever gave it calls the option.

    Raises:
        ConfigError: It is not a number of that kind above 0.
    """
    kind = next(each.metadata["kind"] for each in fields(ServingOptions) if each.name == name)
    try:
        value: int | float = kind(text)
    except ValueError:
        value = 0
    most = _MAX_THREADS if name == "threads" else math.inf
    if not (0 < value <= most and math.isfinite(value)):
        wanted = "a whole number" if kind is int else "a number"
        end = f" and at most {most}" if most < math.inf else ""
        raise ConfigError(f"{called} must be {wanted} above 0{end}, got {text!r}")
    return value
