"""Bytes and milliseconds of full-size KoBART by precision and structured pruning.

    python -m benchmarks.sizes --output docs/measurements/sizes.json

Builds what is missing below build/ and times the engines alone, taking turns, so that a slow
moment of the machine hits all of them. The weights are random: neither bytes nor speed depend on
them. int8 is calibrated on dialogues of `training.corpus`, joined until they are long enough.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.engine_speed import Speed, speeds
from benchmarks.kept_builds import kept_build
from benchmarks.results import read_json, write_json
from builders.checkpoint import RANDOM_CHECKPOINT
from builders.paths import KEPT_BUILDS
from client.perf.machine import Machine
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig
from kobart_runtime.runners import open_runner
from training.corpus.dialogue import CorpusConfig, generate

PRUNE = "structured=0.2"
NUM_DOCUMENTS = 4  # that fp16 and int8 are fitted to: random weights are not judged
NUM_JOINED = 3  # dialogues of a document: about 512 tokens


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    precision: str
    pruned: bool

    @property
    def name(self) -> str:
        """Of the row, and of the build's folder."""
        return f"{self.precision}-structured20" if self.pruned else self.precision


BASE = Variant("fp32", False)
VARIANTS = (BASE, Variant("fp16", False), Variant("int8", False), Variant("fp32", True),
            Variant("int8", True))  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Build what is missing, time, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.sizes", description=__doc__)
    parser.add_argument("--builds", type=Path, default=KEPT_BUILDS, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="in turn; the best counts")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures here too")
    asked = parser.parse_args(argv)
    folders = {variant: built(variant, asked.builds) for variant in VARIANTS}
    configs = {variant: _config(folder) for variant, folder in folders.items()}
    timed = speeds(
        {
            variant.name: open_runner(folders[variant] / config.name / "1", config.engines)
            for variant, config in configs.items()
        },
        asked.rounds,
    )
    before = _checkpoint_bytes(folders)
    rows = [
        row(variant, folders[variant], before[variant.pruned], timed[variant.name])
        for variant in VARIANTS
    ]
    for each in rows:
        each |= ratios(each, rows[0])
    print(table(rows))
    if asked.output:
        write_json(asked.output, {"machine": dataclasses.asdict(Machine.read()), "rows": rows})
    return 0


def built(variant: Variant, builds: Path) -> Path:
    """The folder of a build, made unless an earlier run has left it.

    Raises:
        BuildError: It cannot be built; the command has said why.
    """
    folder = builds / f"{RANDOM_CHECKPOINT}-{variant.name}"
    arguments = ["--checkpoint", RANDOM_CHECKPOINT, "--precision", variant.precision]
    arguments += ["--runtime", "onnxruntime"]
    arguments += ["--prune", PRUNE] if variant.pruned else []
    if variant.precision != "fp32":
        arguments += ["--calibration-data", str(long_documents(builds))]
    return kept_build(folder, *arguments)


def long_documents(folder: Path) -> Path:
    """Documents of about 512 tokens for the random checkpoint, as a file in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{RANDOM_CHECKPOINT}-documents.jsonl"
    lines = [json.dumps(pair, ensure_ascii=False) for pair in islice(_joined(), NUM_DOCUMENTS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _joined() -> Iterator[dict[str, str]]:
    examples = generate(CorpusConfig())
    while True:
        pairs = [example.to_json() for example in islice(examples, NUM_JOINED)]
        yield {key: "\n".join(str(pair[key]) for pair in pairs) for key in ("dialogue", "summary")}


def _config(folder: Path) -> ModelConfig:
    return ModelConfig.from_manifest(folder / MANIFEST_NAME)


def _manifest(folder: Path) -> dict[str, Any]:
    return read_json(folder / MANIFEST_NAME)


def _checkpoint_bytes(folders: dict[Variant, Path]) -> dict[bool, int]:
    """Bytes of model.safetensors, pruned or not: pruning has counted both."""
    pruned = next(folder for variant, folder in folders.items() if variant.pruned)
    stats = _manifest(pruned)["pruning"]["stats"]
    return {False: stats["bytes_on_disk_before"], True: stats["bytes_on_disk"]}


def row(variant: Variant, folder: Path, checkpoint_bytes: int, speed: Speed) -> dict[str, Any]:
    """All that is told of a build but its ratios."""
    manifest = _manifest(folder)
    stats = manifest["pruning"]["stats"] if variant.pruned else None
    parameters = stats["active_params"] if stats else manifest["checkpoint"]["parameters"]
    encoder, decoder = _config(folder).engines.files
    return {
        "name": variant.name,
        "precision": variant.precision,
        "prune": PRUNE if variant.pruned else None,
        "quantization": manifest["built"]["quantization"],
        "parameters": parameters,
        "checkpoint_bytes": checkpoint_bytes,
        "encoder_onnx_bytes": manifest["artefact_bytes"][encoder],
        "decoder_onnx_bytes": manifest["artefact_bytes"][decoder],
        **dataclasses.asdict(speed),
    }


def ratios(row: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Each figure, of the base's: below 1 is smaller or faster."""
    keys = [key for key in row if key.endswith(("_bytes", "_ms")) or key == "parameters"]
    return {f"{key}_ratio": round(row[key] / base[key], 3) for key in keys}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; in brackets the ratio to the first row."""
    keys = [key for key in rows[0] if f"{key}_ratio" in rows[0]]
    lines = [f"| build | {' | '.join(keys)} |", f"| --- |{' ---: |' * len(keys)}"]
    for each in rows:
        cells = [f"{each[key]:,} ({each[f'{key}_ratio']:.2f})" for key in keys]
        lines.append(f"| {each['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
