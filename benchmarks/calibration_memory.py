"""Time and peak memory of calibrating full-size KoBART.

    python -m benchmarks.calibration_memory --documents 512

Takes KoBART's full size with random weights, documents of 512 random ids and summaries of 64: what
is counted does not depend on what the ids are. Builds the float32 build if it is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.kept_builds import kept_build
from builders.checkpoint import RANDOM_CHECKPOINT
from builders.paths import KEPT_BUILDS
from calibration.calibrator import calibrate
from calibration.documents import Document, DocumentSet
from kobart_runtime.host_memory import own_peak_bytes
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig

FIRST_TEXT_ID = 107  # below lie control tokens


def random_documents(count: int, source_len: int, summary_len: int, vocab_size: int) -> DocumentSet:
    """Documents of seeded random ids, all of one length."""
    rng = np.random.default_rng(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(FIRST_TEXT_ID, vocab_size, length).tolist())

    return DocumentSet(
        "random ids", tuple(Document(ids(source_len), ids(summary_len)) for _ in range(count))
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Build what is missing, calibrate, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.calibration_memory", description=__doc__)
    parser.add_argument(
        "--documents", type=int, default=512, help="how many (default: %(default)s)"
    )
    parser.add_argument("--source-len", type=int, default=512, help="ids of each document")
    parser.add_argument("--summary-len", type=int, default=64, help="decode steps of each document")
    parser.add_argument(
        "--build",
        type=Path,
        default=KEPT_BUILDS / f"{RANDOM_CHECKPOINT}-fp32",
        metavar="DIR",
        help="whose graphs are calibrated; made if it is missing (default: %(default)s)",
    )
    asked = parser.parse_args(argv)
    if not (asked.build / MANIFEST_NAME).exists():  # one that is there may be the user's: it stays
        kept_build(asked.build, "--checkpoint", RANDOM_CHECKPOINT)
    config = ModelConfig.from_manifest(asked.build / MANIFEST_NAME)
    documents = random_documents(
        asked.documents, asked.source_len, asked.summary_len, config.shape.vocab_size
    )
    before_mb, cpu_before, started = (
        own_peak_bytes() / 1e6,
        time.process_time(),
        time.perf_counter(),
    )
    scales = calibrate(asked.build / config.name / "1", config.shape, documents, progress=True)
    report = {
        "documents": asked.documents,
        "source_len": asked.source_len,
        "summary_len": asked.summary_len,
        "scales": sum(len(values) for values in scales.scales.values()),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu_before, 1),
        "peak_memory_mb": round(own_peak_bytes() / 1e6),
        "peak_memory_before_mb": round(before_mb),
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
