"""What TensorRT's own int8 calibrator is fed, and where it keeps what it found.

It takes batches of one shape alone. So batches are cut into groups of as many rows, rows are
repeated where there are too few, and the rest is padding that the masks hide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builders.profiles import USUAL_SOURCE, Profile, ShapeRange, Step, step_shapes
from kobart_runtime import bindings
from kobart_runtime.admission import ENTRIES_STEP, round_up
from kobart_runtime.model_config import ModelShape, sha256_of

Shape = tuple[int, ...]
Feed = dict[str, np.ndarray]

MAX_ROWS = 16
MAX_SOURCE_IDS = 2048  # of one batch


@dataclass(frozen=True, kw_only=True)
class PlanCalibration:
    """The calibration of one plan."""

    shapes: dict[str, Shape]  # of every input, in every batch
    feeds: Callable[[], Iterable[Feed]]  # inputs of any shape
    caches: Path  # folder of the files that hold what was found
    documents: str  # sha256 of their file

    @property
    def profile(self) -> Profile:
        """The only shapes that are calibrated with."""
        return {name: ShapeRange(size, size, size) for name, size in self.shapes.items()}

    def cache_of(self, graph: Path, version: str) -> Path:
        """A file of its own for each graph, documents, shapes and version of TensorRT."""
        found_for = f"{sha256_of(graph)} {self.documents} {sorted(self.shapes.items())} {version}"
        key = hashlib.sha256(found_for.encode()).hexdigest()[:16]
        return self.caches / f".tensorrt-calibration-{graph.stem}-{key}.cache"

    def batches(self) -> Iterator[Feed]:
        """The feeds, all of them, in the one shape; C-contiguous."""
        num_rows = next(iter(self.shapes.values()))[0]
        for feed in self.feeds():
            present = len(next(iter(feed.values())))
            for start in range(0, present, num_rows):
                rows = {name: array[start : start + num_rows] for name, array in feed.items()}
                yield {name: fit(rows[name], size) for name, size in self.shapes.items()}


def fit(array: np.ndarray, shape: Shape) -> np.ndarray:
    """Cut what lies beyond a shape, repeat rows up to it, and fill the other axes with 0."""
    cut = array[tuple(slice(size) for size in shape)]
    rows = np.resize(cut, (shape[0], *cut.shape[1:]))
    missing = [(0, size - given) for size, given in zip(shape, rows.shape, strict=True)]
    return np.ascontiguousarray(np.pad(rows, missing))


def encoder_shapes(longest_source: int) -> dict[str, Shape]:
    """For documents up to that many tokens; longer ones than usual are cut."""
    sizes = _batch_sizes(longest_source)
    return {bindings.INPUT_IDS: sizes, bindings.ATTENTION_MASK: sizes}


def decoder_shapes(shape: ModelShape, longest_source: int, longest_target: int) -> dict[str, Shape]:
    """One beam, and room in the cache for the longest summary."""
    num_rows, source_len = _batch_sizes(longest_source)
    entries = round_up(longest_target, ENTRIES_STEP)
    return step_shapes(shape, Step(num_rows, 1, entries, source_len))


def _batch_sizes(longest_source: int) -> Shape:
    source_len = min(longest_source, USUAL_SOURCE)
    return max(1, min(MAX_ROWS, MAX_SOURCE_IDS // source_len)), source_len
