"""What the speed benchmark runs: its builds, its contestants and how much of everything."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.contestants import (
    BuildContestant,
    Contestant,
    CTranslate2Contestant,
    TorchContestant,
)
from benchmarks.converted import ctranslate2_contestants
from benchmarks.generation_sizes import Sizes
from benchmarks.subjects import BuildFacts
from client.perf.machine import Machine

OURS = "kobart-triton"


@dataclass(frozen=True, kw_only=True)
class System:
    """What is compared: one precision of one library, and every way to run it."""

    name: str
    precision: str  # "fp32", "bf16" or "int8"
    is_ours: bool
    contestants: tuple[Contestant, ...]  # the same with other threads

    def options(self, num_sources: int) -> list[Option]:
        """All ways to run so many sources."""
        return [
            Option(contestant, size)
            for contestant in self.contestants
            for size in _batch_sizes(contestant, num_sources)
        ]


@dataclass(frozen=True)
class Option:
    """One way to run a system: a process, and how it cuts the sources into batches."""

    contestant: Contestant
    max_batch_size: int | None  # None: all sources in one batch

    @property
    def name(self) -> str:
        """What was chosen, for people."""
        threads = ""
        if isinstance(self.contestant, CTranslate2Contestant):
            threads = f"{self.contestant.inter_threads} x {self.contestant.intra_threads} threads, "
        size = "whole batch" if self.max_batch_size is None else f"batches of {self.max_batch_size}"
        return threads + size


def _batch_sizes(contestant: Contestant, num_sources: int) -> list[int | None]:
    """Ours batches by itself; peers are tried with the whole batch, and with parts of it."""
    if isinstance(contestant, BuildContestant) or num_sources == 1:
        return [None]
    workers = getattr(contestant, "inter_threads", 1)
    first = None if workers == 1 else math.ceil(num_sources / workers)
    return list(dict.fromkeys([first, 1]))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything that a section needs."""

    fp32: Path  # builds of one checkpoint
    int8: Path
    work: Path  # an empty folder for what is made on the way
    sizes: Sizes
    repeats: int
    _converted: list[CTranslate2Contestant] = field(default_factory=list)

    @property
    def facts(self) -> BuildFacts:
        """Of the float32 build."""
        return BuildFacts.read(self.fp32)

    def build(self, precision: str) -> BuildContestant:
        """This project's runtime, in fp32 or int8."""
        path = {"fp32": self.fp32, "int8": self.int8}[precision]
        return BuildContestant(name=f"{OURS} {precision}", path=path)

    def systems(self) -> list[System]:
        """All that are compared: PyTorch first."""
        return [*self._torch(), *self.ctranslate2(), *self.ours()]

    def ours(self) -> list[System]:
        """This project's runtime in both precisions."""
        builds = [(precision, self.build(precision)) for precision in ("fp32", "int8")]
        return [
            System(name=build.name, precision=precision, is_ours=True, contestants=(build,))
            for precision, build in builds
        ]

    def ctranslate2(self) -> list[System]:
        """CTranslate2 in both precisions, with all cores for one batch or one for each.

        Raises:
            ConfigError: It is not installed.
        """
        if not self._converted:
            facts = self.facts
            found = ctranslate2_contestants(facts.checkpoint, facts.config.ids, self.work)
            self._converted.extend(found)
        precisions = {"float32": "fp32", "int8": "int8"}
        return [
            System(
                name=one.name,
                precision=precisions[one.compute_type],
                is_ours=False,
                contestants=tuple(_threaded(one)),
            )
            for one in self._converted
        ]

    def _torch(self) -> Iterator[System]:
        facts = self.facts
        precisions = ("fp32", "bf16") if has_bfloat16(Machine.read().cpu_flags) else ("fp32",)
        for precision in precisions:
            name = f"PyTorch generate {precision}"
            torch = TorchContestant(
                name=name,
                checkpoint=facts.checkpoint,
                ids=facts.config.ids,
                precision=precision,
            )
            yield System(name=name, precision=precision, is_ours=False, contestants=(torch,))


def has_bfloat16(cpu_flags: str) -> bool:
    """Whether a CPU computes in bfloat16; without, a batch takes PyTorch many minutes."""
    return "bf16" in cpu_flags


def _threaded(contestant: CTranslate2Contestant) -> Iterator[CTranslate2Contestant]:
    cores = os.cpu_count() or 1
    for inter, intra in dict.fromkeys(((1, cores), (cores, 1))):
        name = f"{contestant.name}, {inter} x {intra} threads"
        yield replace(contestant, name=name, inter_threads=inter, intra_threads=intra)


def contestants_of(systems: Sequence[System]) -> list[Contestant]:
    """Every process that systems need."""
    return [contestant for system in systems for contestant in system.contestants]


def settings_of(setup: Setup, more: Mapping[str, object] | None = None) -> dict[str, object]:
    """What every section says of itself."""
    facts = setup.facts
    return {"checkpoint": facts.checkpoint, "repeats": setup.repeats, **(more or {})}
