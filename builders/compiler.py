"""NVIDIA's parser and builder on one graph, on a machine without a GPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from builders.compiler_abi import Builder, BuilderConfig, Library, Network, wheel_folder
from builders.compiler_log import CompilerLog, ProfileFacts
from builders.profiles import Profile
from builders.workspace import workspace_remedy
from kobart_runtime.errors import BuildError

VERSION_NAME = "TensorRT for RTX 1.7.1"
DEFAULT_TARGETS = (89,)
_LONGEST_REASON = 600  # characters of the compiler's own words


@dataclass(frozen=True)
class TensorFacts:
    """An input or output, as NVIDIA's parser sees it."""

    type: str  # as in `compiler_abi.DATA_TYPES`
    shape: tuple[int, ...]  # -1 where dynamic


@dataclass(frozen=True, kw_only=True)
class CompiledGraph:
    """What became of one graph."""

    refusals: tuple[str, ...] = ()  # why it was refused; empty: it was built
    warnings: tuple[str, ...] = ()
    num_layers: int = 0  # that the parser made
    inputs: dict[str, TensorFacts] = field(default_factory=dict)
    outputs: dict[str, TensorFacts] = field(default_factory=dict)
    plan_bytes: int = 0
    weight_bytes: int = 0
    build_seconds: float = 0.0
    profiles: tuple[ProfileFacts, ...] = ()

    @property
    def activation_bytes(self) -> int:
        """Scratch memory of the most demanding profile."""
        return max((profile.activation_bytes for profile in self.profiles), default=0)


def compile_graph(
    graph: Path,
    profiles: Sequence[Profile],
    targets: Sequence[int] = DEFAULT_TARGETS,
    workspace_bytes: int | None = None,
) -> CompiledGraph:
    """Parse a graph and build its engine, in a process of its own.

    A process of its own, because a defect of the graph or of the library may end it, and because
    the library keeps what it has allocated.

    Args:
        graph: An ONNX file.
        profiles: Shapes that the engine will take.
        targets: Compute capabilities, such as 89 for 8.9.
        workspace_bytes: Scratch memory that a layer may use; None: as much as it wants.

    Raises:
        ConfigError: The compiler is not installed.
        BuildError: It is another version, takes none of the targets, or died.
    """
    wheel_folder()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        job = pool.submit(_compile, graph, list(profiles), tuple(targets), workspace_bytes)
        try:
            return job.result()
        except BrokenProcessPool as error:
            raise BuildError(
                f"NVIDIA's compiler ended on {graph} without a word: is there memory left?"
            ) from error


def _compile(
    graph: Path, profiles: list[Profile], targets: tuple[int, ...], workspace_bytes: int | None
) -> CompiledGraph:
    log = CompilerLog()
    library = Library(log.add)
    builder = library.builder()
    config = builder.create_config()
    config.describe_layers()
    if workspace_bytes is not None:
        config.limit_workspace(workspace_bytes)
    if not config.set_targets(targets):
        raise BuildError(
            f"{VERSION_NAME} does not build for {', '.join(map(str, targets))}: give compute "
            "capabilities such as 80, 86, 89 or 120"
        )
    network = builder.create_network()
    parser = library.parser(network)
    if not parser.parse(graph):
        refusals = tuple(
            f"node {error.node_name}, operator {error.operator}: {error.message}"
            for error in parser.errors()
        )
        return CompiledGraph(refusals=refusals or tuple(log.errors))
    inputs, outputs = (
        {tensor.name: TensorFacts(tensor.data_type, tensor.shape) for tensor in tensors}
        for tensors in (network.inputs(), network.outputs())
    )
    parsed = CompiledGraph(num_layers=network.num_layers, inputs=inputs, outputs=outputs)
    refused = _refused_profiles(builder, config, profiles)
    if refused:
        return _refused(parsed, refused)
    return _build(parsed, builder, config, network, log)


def _refused_profiles(
    builder: Builder, config: BuilderConfig, profiles: list[Profile]
) -> tuple[str, ...]:
    """Add the profiles to the configuration; what is wrong with those that it does not take."""
    refused = []
    for number, wanted in enumerate(profiles):
        profile = builder.create_profile()
        refused += [
            f"profile {number}: {name} from {sizes.min} over {sizes.opt} to {sizes.max}"
            for name, sizes in wanted.items()
            if not profile.set_shapes(name, min=sizes.min, opt=sizes.opt, max=sizes.max)
        ]
        if not profile.is_valid or not config.add_profile(profile):
            refused.append(f"profile {number} is not valid")
    return tuple(refused)


def _build(
    parsed: CompiledGraph,
    builder: Builder,
    config: BuilderConfig,
    network: Network,
    log: CompilerLog,
) -> CompiledGraph:
    started = time.monotonic()
    plan = builder.build(network, config)
    if plan is None:
        remedy = workspace_remedy(log.errors)
        return _refused(parsed, (remedy,) if remedy else tuple(log.errors))
    return CompiledGraph(
        warnings=tuple(log.warnings),
        num_layers=parsed.num_layers,
        inputs=parsed.inputs,
        outputs=parsed.outputs,
        plan_bytes=len(plan),
        weight_bytes=log.weight_bytes,
        build_seconds=round(time.monotonic() - started, 1),
        profiles=tuple(log.profiles()),
    )


def _refused(parsed: CompiledGraph, reasons: tuple[str, ...]) -> CompiledGraph:
    return CompiledGraph(
        refusals=tuple(reason[:_LONGEST_REASON] for reason in reasons),
        num_layers=parsed.num_layers,
        inputs=parsed.inputs,
        outputs=parsed.outputs,
    )
