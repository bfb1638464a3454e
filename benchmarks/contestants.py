"""Systems that are compared, each in a process of its own.

Its memory is then its own, and its threads do not meet those of another library. PyTorch is
imported by the processes that need it alone.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kobart_runtime.errors import EngineError
from kobart_runtime.host_memory import own_peak_bytes
from kobart_runtime.model_config import TokenIds
from kobart_runtime.settings import GenerationSettings

Batches = Sequence[Sequence[np.ndarray]]  # source ids int32[S] of each document
T = TypeVar("T")

_END_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One system; `open` runs in its own process."""

    name: str
    size_mb: float = 0.0  # of what is loaded

    def open(self) -> Any:
        """A `benchmarks.decoding.System`, or whatever the work asked of it takes."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BuildContestant(Contestant):
    """A build of this project."""

    path: Path

    def open(self) -> Any:
        """See `Contestant`."""
        from benchmarks.our_runtime import OurRuntime

        return OurRuntime(self.path)


@dataclass(frozen=True, kw_only=True)
class TorchContestant(Contestant):
    """A checkpoint in PyTorch, eager."""

    checkpoint: str
    ids: TokenIds
    precision: str = "fp32"
    # Of `load_checkpoint`; contestants are compared by hash too, which a mapping has none of.
    load_options: Mapping[str, str | None] = field(default_factory=dict, hash=False)

    def open(self) -> Any:
        """See `Contestant`."""
        from transformers.utils import logging as transformers_logging

        from benchmarks.systems import TorchGenerate
        from builders.checkpoint import load_checkpoint
        from builders.special_ids import IdOverrides

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        checkpoint = load_checkpoint(self.checkpoint, IdOverrides(), **self.load_options)
        return TorchGenerate(replace(checkpoint, ids=self.ids), precision=self.precision)


@dataclass(frozen=True, kw_only=True)
class CTranslate2Contestant(Contestant):
    """A checkpoint that was converted."""

    folder: Path
    ids: TokenIds
    compute_type: str
    inter_threads: int = 1
    intra_threads: int | None = None

    def open(self) -> Any:
        """See `Contestant`."""
        from benchmarks.ctranslate2_folder import CTranslate2Folder

        return CTranslate2Folder(
            self.folder,
            self.ids,
            self.compute_type,
            inter_threads=self.inter_threads,
            intra_threads=self.intra_threads,
        )


@dataclass(frozen=True)
class Round:
    """All batches once."""

    batch_s: list[float]  # seconds of each batch
    ids: list[list[int]]  # of each document
    peak_memory_mb: float  # of the process, until now


@dataclass(frozen=True)
class _Failure:
    message: str


class Runner:
    """A contestant's process."""

    def __init__(self, name: str, pipe: Connection, process: Any) -> None:
        self.name = name
        self._pipe = pipe
        self._process = process

    def run(self, work: Callable[[Any], T], settle_s: float = 0.0) -> T:
        """Have the process do some work.

        Args:
            work: A module's function, or a `partial` of one; takes what the contestant opened.
            settle_s: Waited before, so that the last contestant's threads have fallen asleep.

        Raises:
            EngineError: It failed, or its process died.
        """
        time.sleep(settle_s)
        try:
            self._pipe.send(work)
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join(_END_S)
            raise EngineError(
                f"{self.name} died (exit code {self._process.exitcode}): see its messages above"
            ) from error
        if isinstance(answer, _Failure):
            raise EngineError(f"{self.name}: {answer.message}")
        found: T = answer
        return found


@contextmanager
def runners(contestants: Sequence[Contestant]) -> Iterator[list[Runner]]:
    """A process for each contestant, for as long as the block runs."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        started = []
        for contestant in contestants:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(contestant, theirs), daemon=True)
            process.start()
            theirs.close()
            stack.callback(_end, process, ours)
            started.append(Runner(contestant.name, ours, process))
        yield started


def _end(process: Any, pipe: Connection) -> None:
    pipe.close()  # the process sees it, and ends
    process.join(_END_S)
    if process.is_alive():
        process.kill()
        process.join()


def _work(contestant: Contestant, pipe: Connection) -> None:
    """What a contestant's process does until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        system = contestant.open()
        while True:
            pipe.send(pipe.recv()(system))
    except EOFError:
        return
    except Exception as error:  # whatever a library raises is told to the parent
        pipe.send(_Failure(f"{type(error).__name__}: {error}"))


def one_round(system: Any, batches: Batches, settings: GenerationSettings) -> Round:
    """All batches once."""
    batch_s: list[float] = []
    ids: list[list[int]] = []
    for batch in batches:
        started = time.perf_counter()
        ids.extend(system.generate(batch, settings))
        batch_s.append(time.perf_counter() - started)
    return Round(batch_s, ids, own_peak_bytes() / 1e6)
