"""Check a prepared folder with NVIDIA's own compiler: the command `kobart-check-plans`.

Parses TensorRT's graphs and builds their engines with every optimization profile, on a machine
without a GPU. What a GPU has to prove (numbers, speed) it does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kobart_runtime.required_packages import required_packages

with required_packages("kobart-check-plans", "build,tensorrt-check"):
    from builders.compiler import DEFAULT_TARGETS, VERSION_NAME, CompiledGraph, compile_graph
    from builders.engine_contract import (
        KV_TYPES,
        EngineContract,
        decoder_contract,
        encoder_contract,
    )
    from builders.prepared_plans import PlanJob, read_jobs
    from builders.profile_coverage import decoder_gap, encoder_gap
    from builders.workspace import MIB
    from kobart_runtime.errors import ConfigError, KobartError
    from kobart_runtime.model_config import ENGINE_FILES, MANIFEST_NAME, ModelConfig

_ENCODER, _DECODER = ENGINE_FILES["tensorrt"]


@dataclass(frozen=True, kw_only=True)
class GraphReport:
    """One graph of the folder."""

    job: PlanJob
    compiled: CompiledGraph
    faults: tuple[str, ...]  # empty: nothing is wrong with it


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0 if all graphs were accepted, else 1; argparse exits by 2.
    """
    options = _parser().parse_args(arguments)
    try:
        reports = check_folder(
            Path(options.folder), options.target, _workspace_bytes(options.workspace_mib)
        )
        if options.json:
            _write_json(options.json, options, reports)
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 1 if any(report.faults for report in reports) else 0


def check_folder(
    folder: Path,
    targets: Sequence[int] = DEFAULT_TARGETS,
    workspace_bytes: int | None = None,
) -> list[GraphReport]:
    """Compile every graph of a prepared folder, and print what came of it.

    Args:
        folder: `kobart-build --runtime tensorrt --prepare` wrote it.
        targets: Compute capabilities to build for, such as 89.
        workspace_bytes: Scratch memory that a layer may use; None: as much as it wants.

    Raises:
        BuildError: The compiler is another version, takes none of the targets, or died; or the
            manifest is not one of this version.
        ConfigError: The folder was not prepared, or the compiler is not installed.
    """
    jobs = read_jobs(folder)
    config = ModelConfig.from_manifest(folder / MANIFEST_NAME)
    shown = ", ".join(f"{target // 10}.{target % 10}" for target in targets)
    print(f"{VERSION_NAME}, compute capability {shown}", flush=True)
    reports = []
    for job in jobs:
        compiled = compile_graph(folder / job.graph, job.profiles, targets, workspace_bytes)
        report = GraphReport(
            job=job, compiled=compiled, faults=tuple(_faults(job, compiled, config))
        )
        print("\n".join(describe(report)), flush=True)
        reports.append(report)
    if not any(report.faults for report in reports):
        print("\n".join(describe_memory(reports)), flush=True)
    return reports


def describe(report: GraphReport) -> list[str]:
    """Lines about one graph."""
    job, compiled = report.job, report.compiled
    title = f"{job.graph} ({job.precision})"
    if report.faults:
        return [f"{title}: REFUSED", *(f"  {fault}" for fault in report.faults)]
    profiles = compiled.profiles
    copied = [f"{p.num_copies} ({p.num_kv_copies} of keys and values)" for p in profiles]
    return [
        f"{title}: accepted, {compiled.num_layers} layers, {len(compiled.inputs)} inputs and "
        f"{len(compiled.outputs)} outputs as the engines' contract has them",
        f"  plan              {_mib(compiled.plan_bytes)}, built in {compiled.build_seconds:.0f} s",
        f"  weights           {_mib(compiled.weight_bytes)}",
        f"  scratch memory    {_each([_mib(p.activation_bytes) for p in profiles])}",
        f"  kernels a run     {_each([str(p.num_kernels) for p in profiles])}",
        f"  of these          {_each([_counts(p.kinds) for p in profiles])}",
        f"  products          {_each([_counts(p.products) for p in profiles])}",
        f"  fused attentions  {_each([str(p.num_attentions) for p in profiles])}",
        f"  copies            {_each(copied)}",
        *(f"  warning           {warning}" for warning in compiled.warnings),
    ]


def describe_memory(reports: Sequence[GraphReport]) -> list[str]:
    """What the model runner will hold on the device, but for the cache of keys and values."""
    weights = sum(report.compiled.weight_bytes for report in reports)
    scratch = max(report.compiled.activation_bytes for report in reports)
    return [
        f"device memory: weights {_mib(weights)} + scratch memory {_mib(scratch)}, which all "
        f"execution contexts share = {_mib(weights + scratch)}; keys and values are beside it",
    ]


def _faults(job: PlanJob, compiled: CompiledGraph, config: ModelConfig) -> list[str]:
    """Everything that is wrong with a graph, the compiler's own reasons first."""
    shape, limits = config.shape, config.limits
    faults = [*compiled.refusals, *contract_faults(job, compiled, config)]
    gap = (
        encoder_gap(job.profiles, limits)
        if job.plan == _ENCODER
        else decoder_gap(job.profiles, limits, shape)
    )
    return [*faults, *([gap] if gap else [])]


def contract_faults(job: PlanJob, compiled: CompiledGraph, config: ModelConfig) -> list[str]:
    """Inputs and outputs that are not as the engines' contract has them."""
    contracts = {_ENCODER: encoder_contract, _DECODER: decoder_contract}
    return _differences(contracts[job.plan](config.shape), compiled) if compiled.inputs else []


def _differences(contract: EngineContract, compiled: CompiledGraph) -> list[str]:
    faults = []
    kv_types = set()
    for kind, wanted, found in (
        ("input", contract.inputs, compiled.inputs),
        ("output", contract.outputs, compiled.outputs),
    ):
        faults += [f"{kind} {name} is missing" for name in wanted if name not in found]
        faults += [f"{kind} {name} is not in the contract" for name in found if name not in wanted]
        for name in wanted.keys() & found.keys():
            tensor = found[name]
            fault = wanted[name].fault(tensor.type, tensor.shape)
            faults += [f"{kind} {name} {fault}"] if fault else []
            kv_types |= {tensor.type} if wanted[name].types == KV_TYPES else set()
    if len(kv_types) > 1:
        faults.append(f"keys and values are of several types: {', '.join(sorted(kv_types))}")
    return sorted(faults)


def _each(values: list[str]) -> str:
    """Values by profile; one alone if they are equal."""
    return values[0] if len(set(values)) == 1 else " | ".join(values)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / MIB:.1f} MiB"


def _workspace_bytes(mib: int | None) -> int | None:
    if mib is not None and mib < 1:
        raise ConfigError(f"--workspace-mib must be above 0, got {mib}: leave it out for no limit")
    return None if mib is None else mib * MIB


def _write_json(path: Path, options: argparse.Namespace, reports: Sequence[GraphReport]) -> None:
    content = {
        "folder": options.folder,
        "compiler": VERSION_NAME,
        "targets": options.target,
        "workspace_mib": options.workspace_mib,
        "graphs": [
            {
                "graph": report.job.graph,
                "precision": report.job.precision,
                "accepted": not report.faults,
                "faults": report.faults,
                **asdict(report.compiled),
            }
            for report in reports
        ],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _targets(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of compute capabilities such as 86,89"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kobart-check-plans",
        description="Parse and build the TensorRT graphs of a prepared folder with NVIDIA's own "
        f"compiler ({VERSION_NAME}) on a machine without a GPU.",
        epilog="The folder comes from `kobart-build --runtime tensorrt --prepare --output FOLDER`. "
        "Values of several optimization profiles stand in their order, with | between them.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER", help="holds the graphs and plans.json")
    parser.add_argument(
        "--target",
        type=_targets,
        default=list(DEFAULT_TARGETS),
        metavar="N[,N]",
        help="compute capabilities without the dot: 80, 86, 89, 120 (default: 89)",
    )
    parser.add_argument(
        "--workspace-mib",
        type=int,
        metavar="N",
        help="scratch memory that a layer may use (default: as much as it wants)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
