"""Float32 graphs -> the graphs that a build runs, in float16 or int8.

An int8 build makes two pairs of graphs or three. The portable one is explicit Q/DQ with calibrated
scales, which TensorRT reads too. The others measure their scales in every step and are for CPUs
alone, with signed weights or with unsigned ones: the processor decides which (`choosing.py`), or
all three are timed. What is made is compared with the checkpoint, and what the build runs is the
first, or the fastest, that passes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from builders.agreement import Teacher
from builders.checkpoint import RANDOM_CHECKPOINT
from builders.checkpoint_files import DEV_FILE, find_files
from builders.choosing import Choice, Policy, below_gate, dynamic_kind, fastest
from builders.half_precision import OVERFLOW_DOCUMENTS, convert_to_half
from builders.quantize_dynamic import write_dynamic
from builders.quantize_qdq import quantize_qdq
from builders.repository import link
from builders.sensitivity import leave_out
from builders.timing import batch_ms
from calibration.calibrator import calibrate
from calibration.documents import DocumentSet
from calibration.feeds import decoder_feeds, encoder_feeds
from calibration.scales import GRAPH_FILES, SCALES_FILE, Scales
from kobart_runtime.errors import ConfigError
from kobart_runtime.model_config import DECODER_FILE, ENCODER_FILE, ModelShape
from kobart_runtime.onnxruntime_runner import OnnxRuntimeRunner

AGREEMENT_GATES = {"fp16": 0.995, "int8": 0.97}
INT8_AIM = 0.99  # below it, the most sensitive products of a trained model stay float32
QDQ, DYNAMIC, UNSIGNED = "qdq", "dynamic", "dynamic-unsigned"
PORTABLE_FILES = {name: name.replace(".onnx", ".qdq.onnx") for name in GRAPH_FILES}


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How the graphs of a build came from the float32 ones; stands in the manifest."""

    kind: str  # what is run: "float16", or a key of `agreements`
    documents: str  # sha256 of the file
    num_documents: int
    float32_nodes: tuple[str, ...]  # left alone: too large for float16, or too sensitive for int8
    reason: str | None = None  # why this kind of int8
    fell_back: bool = False  # another kind was to be taken, and is below the accuracy gate
    agreements: dict[str, float] = field(default_factory=dict)  # kind -> share of equal tokens
    batch_ms: dict[str, float] = field(default_factory=dict)  # kind -> time of one batch, if timed
    portable: tuple[str, ...] = ()  # files of the portable graphs and their scales


def shipped_documents(source: str) -> Path:
    """The documents of a build that was not given any: the checkpoint's own, not yet loaded.

    Raises:
        ConfigError: There are none.
        CheckpointError: There is no such checkpoint.
    """
    folder = None if source == RANDOM_CHECKPOINT else find_files(source).folder
    if folder is None or not (folder / DEV_FILE).is_file():
        raise ConfigError(
            f"fp16 and int8 are fitted to documents and {source} ships no {DEV_FILE}: "
            "give --calibration-data FILE, documents with their summaries"
        )
    return folder / DEV_FILE


@contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """A folder below the build for graphs that are not delivered."""
    with TemporaryDirectory(prefix=".graphs", dir=root) as folder:
        yield Path(folder)


def make_half(source: Path, target: Path, shape: ModelShape, documents: DocumentSet) -> Conversion:
    """Write the float16 graphs.

    Args:
        source: Folder of the float32 graphs.
        target: Folder to write to.
        shape: Their dimensions.
        documents: What to look for overflows on; a sample of them is enough.

    Raises:
        BuildError: A value at the border is too large for float16.
    """
    documents = documents.sample(OVERFLOW_DOCUMENTS)
    runner = OnnxRuntimeRunner(source, shape)
    feeds = {
        ENCODER_FILE: encoder_feeds(documents),
        DECODER_FILE: decoder_feeds(documents, runner),
    }
    kept = [
        f"{name}:{node}"
        for name, feed in feeds.items()
        for node in convert_to_half(source / name, target / name, feed)
    ]
    return Conversion(
        kind="float16",
        documents=documents.sha256,
        num_documents=len(documents.documents),
        float32_nodes=tuple(kept),
    )


@dataclass(frozen=True)
class Int8Maker:
    """Makes the int8 graphs of one build in its workspace, below the float32 ones.

    Attributes:
        source: Folder of the float32 graphs.
        shape: Their dimensions.
        documents: What to calibrate on.
        teacher: The checkpoint's choices, to compare with.
        trained: Whether accuracy means anything.
        policy: What the kind is chosen by.
    """

    source: Path
    shape: ModelShape
    documents: DocumentSet
    teacher: Teacher
    trained: bool
    policy: Policy

    def calibrate(self) -> Scales:
        """Entropy scales of both graphs."""
        return calibrate(self.source, self.shape, self.documents, progress=True)

    def make(self, scales: Scales, target: Path) -> Conversion:
        """Write the graphs, the portable ones and the scales to `target`."""
        excluded: tuple[str, ...] = ()
        agreements = {QDQ: self._write_qdq(scales, excluded)}
        if self.trained and agreements[QDQ] < INT8_AIM:
            excluded = leave_out(
                self.source, self.shape, scales, self.documents, self._write_qdq, INT8_AIM
            )
            agreements[QDQ] = self._write_qdq(scales, excluded)
        choice, times = self._choose(agreements, excluded)
        return Conversion(
            kind=choice.taken,
            reason=choice.reason,
            fell_back=choice.fell_back,
            documents=self.documents.sha256,
            num_documents=len(self.documents.documents),
            float32_nodes=excluded,
            agreements=agreements,
            batch_ms=times,
            portable=self._deliver(choice.taken, scales, target),
        )

    def _choose(
        self, agreements: dict[str, float], excluded: tuple[str, ...]
    ) -> tuple[Choice, dict[str, float]]:
        """Write the kinds that come into question; adds their agreement to `agreements`.

        Returns:
            The kind, and the times of all if they were measured.
        """
        gate = self.policy.gate
        if self.policy.tune:
            for kind in (DYNAMIC, UNSIGNED):
                agreements[kind] = self._write_dynamic(kind, excluded)
            folders = {kind: self._folder(kind) for kind in agreements}
            times = batch_ms(folders, self.shape, self.documents)
            return choose(agreements, times, gate), times
        rule = dynamic_kind(self.policy.processor)
        for kind in dict.fromkeys((rule.taken, UNSIGNED)):
            agreements[kind] = self._write_dynamic(kind, excluded)
            if agreements[kind] >= gate:
                break
        return first_passing(rule, agreements, gate), {}

    def _folder(self, kind: str) -> Path:
        folder = self.source / kind
        folder.mkdir(exist_ok=True)
        return folder

    def _write_qdq(self, scales: Scales, excluded: tuple[str, ...]) -> float:
        folder = self._folder(QDQ)
        for name in GRAPH_FILES:
            left = nodes_of(name, excluded)
            quantize_qdq(self.source / name, folder / name, scales.scales[name], left)
        return self.teacher.agreement(folder, self.shape)

    def _write_dynamic(self, kind: str, excluded: tuple[str, ...]) -> float:
        folder = self._folder(kind)
        for name in GRAPH_FILES:
            left, unsigned = nodes_of(name, excluded), kind == UNSIGNED
            write_dynamic(self.source / name, folder / name, left, unsigned=unsigned)
        return self.teacher.agreement(folder, self.shape)

    def _deliver(self, kind: str, scales: Scales, target: Path) -> tuple[str, ...]:
        for name, portable in PORTABLE_FILES.items():
            shutil.move(self._folder(QDQ) / name, target / portable)
            if kind == QDQ:
                link(target / portable, target / name)
            else:
                shutil.move(self._folder(kind) / name, target / name)
        scales.write(target / SCALES_FILE)
        return (*PORTABLE_FILES.values(), SCALES_FILE)


def choose(agreements: Mapping[str, float], times: Mapping[str, float], gate: float) -> Choice:
    """The fastest kind that passes the gate; the most exact one if none does."""
    passing = {kind: ms for kind, ms in times.items() if agreements[kind] >= gate}
    failing = [below_gate(kind, agreements[kind], gate) for kind in times if kind not in passing]
    fast = fastest(times, "batch")
    if fast.taken in passing:
        return fast
    kind = fastest(passing, "batch").taken if passing else most_exact(agreements)
    reason = f"{fast.reason}; {'; '.join(failing)}: {kind} instead"
    return Choice(taken=kind, reason=reason, fell_back=True)


def first_passing(rule: Choice, agreements: Mapping[str, float], gate: float) -> Choice:
    """The rule's kind if it passes the gate, then the most exact one.

    Args:
        rule: The kind that is to be taken.
        agreements: Kind -> share of equal tokens, 0..1, of those that were made.
        gate: The lowest share that is accepted.
    """
    if agreements[rule.taken] >= gate:
        return rule
    kind = most_exact(agreements)
    failing = "; ".join(
        below_gate(each, share, gate) for each, share in agreements.items() if share < gate
    )
    return Choice(taken=kind, reason=f"{failing}: {kind} instead", fell_back=kind != rule.taken)


def most_exact(agreements: Mapping[str, float]) -> str:
    """The kind with the largest share of equal tokens."""
    return max(agreements, key=lambda kind: agreements[kind])


def nodes_of(graph: str, excluded: tuple[str, ...]) -> list[str]:
    """The nodes of one graph among `GRAPH:NODE` names."""
    return [name.partition(":")[2] for name in excluded if name.partition(":")[0] == graph]
