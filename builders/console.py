"""What a build prints beside its steps: what deserves a notice, and the summary."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from builders.manifest import BuildFacts
from builders.repository import Layout


def print_lines(label: str, lines: Iterable[str]) -> None:
    """Print each line behind a label."""
    for line in lines:
        print(f"{label}: {line}", flush=True)


def print_summary(facts: BuildFacts, output: Path) -> None:
    """Say what was built, how exact it is, where it lies and what to do next."""
    ids, verification, asked = facts.checkpoint.ids, facts.verification, facts.config
    print(
        f"ids:       bos {ids.bos}, eos {list(ids.eos)}, pad {ids.pad}, "
        f"decoder start {ids.decoder_start}, "
        f"forced bos {ids.forced_bos}, forced eos {ids.forced_eos}\n"
        f"precision: {facts.precision} built, {asked.precision} requested\n"
        f"runtime:   {facts.runtime} built, {asked.runtime} requested\n"
        f"{_int8_lines(facts)}"
        f"compared:  {verification.summary}\n"
        f"size:      {_sizes(facts, output)}\n"
        f"build:     {output}\n"
        f"next:      kobart-serve {_shown(output)}"
    )


def print_prepared(facts: BuildFacts, output: Path) -> None:
    """Say what was prepared for the TensorRT of another machine, and what to do next."""
    asked, shown = facts.config, _shown(output)
    sizes = (f"{path.name} {_mib(path)}" for path in sorted(output.glob("*.onnx")))
    print(
        f"precision: {facts.precision} prepared, {asked.precision} requested\n"
        f"runtime:   {facts.runtime}, no plans yet\n"
        f"compared:  {facts.verification.summary}\n"
        f"size:      {', '.join(sizes)}\n"
        f"folder:    {output}\n"
        f"next:      kobart-check-plans {shown}   (here; needs no GPU)\n"
        f"           python -m builders.build_plans {shown}   (on the machine with the GPU)"
    )


def _int8_lines(facts: BuildFacts) -> str:
    """What an int8 build for CPUs has chosen, and why."""
    if facts.cpu is None or facts.conversion is None:
        return ""
    encoder, cross_kv = facts.cpu.encoder, facts.cpu.cross_kv
    return (
        f"products:  {facts.conversion.kind} ({facts.conversion.reason})\n"
        f"encoder:   {encoder.engine} ({encoder.reason})\n"
        f"cross K/V: {cross_kv.kept} ({cross_kv.reason})\n"
    )


def _sizes(facts: BuildFacts, output: Path) -> str:
    layout = Layout(root=output, name=facts.config.model_name, runtime=facts.runtime)
    run_by_front = [layout.front / name for name in facts.engines.files]
    paths = dict.fromkeys([*layout.artefacts, *run_by_front])
    return ", ".join(f"{path.name} {_mib(path)}" for path in paths)


def _mib(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"


def _shown(path: Path) -> str:
    """As a shell takes it; relative to the working directory if inside it, else absolute."""
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(shown))
