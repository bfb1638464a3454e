"""What a build prints: one line a step, what deserves a notice, and the summary."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from builders.manifest import BuildFacts
from builders.repository import Layout

NUM_STEPS = {"fp32": 5, "fp16": 6, "int8": 7}
NUM_RUNTIME_STEPS = {"tensorrt": 2, "onnxruntime": 1, "torchscript": 0}  # beside them
NUM_ENCODER_STEPS = {("int8", "onnxruntime"): 1}  # its engine is chosen


class Steps:
    """Counts the steps of a build, and says of each how long it took."""

    def __init__(self, precision: str, runtime: str) -> None:
        self._total = NUM_STEPS[precision] + NUM_RUNTIME_STEPS[runtime]
        self._total += NUM_ENCODER_STEPS.get((precision, runtime), 0)
        self._done = 0

    @contextmanager
    def __call__(self, text: str) -> Iterator[None]:
        """Announce a step, and tell its seconds or its failure."""
        self._done += 1
        with _timed(f"[{self._done}/{self._total}] {text}"):
            yield


@contextmanager
def _timed(text: str) -> Iterator[None]:
    print(f"{text} ...", end=" ", flush=True)
    started = time.perf_counter()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.perf_counter() - started:.1f} s", flush=True)


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
        f"{_encoder_line(facts)}"
        f"compared:  {verification.summary}\n"
        f"size:      {_sizes(Layout(root=output, name=asked.model_name, runtime=facts.runtime))}\n"
        f"build:     {output}\n"
        f"next:      kobart-serve {_shown(output)}"
    )


def _encoder_line(facts: BuildFacts) -> str:
    """What runs the encoder, where it was chosen."""
    choice = facts.encoder
    return f"encoder:   {choice.engine} ({choice.reason})\n" if choice else ""


def _sizes(layout: Layout) -> str:
    return ", ".join(
        f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in layout.artefacts
    )


def _shown(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
