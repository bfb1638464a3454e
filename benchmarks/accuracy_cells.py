"""What the accuracy tables compare: builds of kobart-mini, and how each is made and scored."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.results import read_json, write_json
from benchmarks.scoring import Judge
from builders.config import BuildConfig
from builders.paths import DEFAULT_CHECKPOINT_FOLDER
from builders.pipeline import build
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig
from training.corpus.dialogue import CorpusConfig, generate
from training.finetune_config import FinetuneConfig
from training.finetune_pipeline import REPORT_FILE, finetune

MINI = DEFAULT_CHECKPOINT_FOLDER
TEST_FILE = MINI / "test.jsonl"

# Fine-tuning: fresh dialogues of the training split, no combination of values in common with the
# test split. The rate is a tenth of a from-scratch rate for a model of this size.
TRAIN_SEED = "fine-tuning"
NUM_PAIRS = 400  # of an epoch
LEARNING_RATE = 3e-4
BATCH_SIZE = 8

METHODS = ("magnitude", "global", "structured")
# Share to prune -> epochs of fine-tuning: the more is gone, the longer it takes to recover.
# Beyond 60 % the unpruned score is out of reach; 80 % shows how a model breaks.
EPOCHS = {0.2: 1, 0.3: 1, 0.4: 1, 0.5: 2, 0.6: 3, 0.8: 0}
LAYERS = "layers=encoder:3,decoder:2"
LAYERS_EPOCHS = 3


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One build."""

    prune: str = ""  # a step of --prune; empty: none
    epochs: int = 0  # of fine-tuning behind the pruning
    precision: str = "fp32"
    runtime: str = "onnxruntime"

    @property
    def name(self) -> str:
        """A file name of its own."""
        parts = (self.precision, self.runtime, self.prune or "whole", f"{self.epochs}-epochs")
        return "-".join(parts).replace(":", "").replace(",", "-")


BUILDS = (
    Cell(),
    Cell(runtime="torchscript"),
    Cell(precision="fp16"),
    Cell(precision="int8"),
    Cell(prune="structured=0.2"),
    Cell(prune="structured=0.2", epochs=1),
    Cell(prune="structured=0.2", epochs=1, precision="fp16"),
    Cell(prune="structured=0.2", epochs=1, precision="int8"),
    Cell(prune="global=0.4", epochs=1),
    Cell(prune="global=0.4", epochs=1, precision="int8"),
    Cell(prune=LAYERS),
    Cell(prune=LAYERS, epochs=LAYERS_EPOCHS),
    Cell(prune=LAYERS, epochs=LAYERS_EPOCHS, precision="int8"),
)
SPARSITY = tuple(
    Cell(prune=f"{method}={share}", epochs=num_epochs)
    for method in METHODS
    for share, epochs in EPOCHS.items()
    for num_epochs in sorted({0, epochs})
)
CELLS = tuple(dict.fromkeys((*BUILDS, *SPARSITY)))


def run_cell(cell: Cell, work: Path) -> dict[str, Any]:
    """Make and score one build, unless an earlier run has: results are kept in `work`.

    Args:
        cell: What to build.
        work: Holds builds, fine-tuned checkpoints and results; made if it is missing.

    Returns:
        The cell's fields, and what was measured.

    Raises:
        KobartError: The fine-tuning or the build failed.
    """
    result = work / f"{cell.name}.json"
    if result.is_file():
        return read_json(result)
    work.mkdir(parents=True, exist_ok=True)
    checkpoint, training = _checkpoint(cell, work)
    output = work / cell.name
    shutil.rmtree(output, ignore_errors=True)
    started = time.perf_counter()
    build(
        BuildConfig(
            checkpoint=str(checkpoint),
            prune=(cell.prune,) if cell.prune and not cell.epochs else None,
            precision=cell.precision,
            runtime=cell.runtime,
            output=str(output),
        )
    )
    row = {
        **asdict(cell),
        "build_seconds": round(time.perf_counter() - started, 1),
        **_sizes(output, training),
        **asdict(Judge.of(MINI, TEST_FILE).score(output)),
    }
    write_json(result, row)
    return row


def _checkpoint(cell: Cell, work: Path) -> tuple[Path, dict[str, Any] | None]:
    """What is built, and the report of its fine-tuning; one serves all precisions."""
    if not cell.epochs:
        return MINI, None
    folder = work / f"checkpoint-{Cell(prune=cell.prune, epochs=cell.epochs).name}"
    if not (folder / REPORT_FILE).is_file():
        config = FinetuneConfig(
            checkpoint=str(MINI),
            train=str(_pairs(work)),
            prune=(cell.prune,),
            epochs=float(cell.epochs),
            learning_rate=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            rouge_documents=1,  # the test split is scored instead
            output=str(folder),
        )
        finetune(config, force=True)
    return folder, read_json(folder / REPORT_FILE)


def _pairs(work: Path) -> Path:
    """The dialogues of an epoch."""
    path = work / f"train-{NUM_PAIRS}.jsonl"
    if not path.is_file():
        examples = islice(generate(CorpusConfig(seed=TRAIN_SEED)), NUM_PAIRS)
        lines = [json.dumps(example.to_json(), ensure_ascii=False) for example in examples]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _sizes(output: Path, training: dict[str, Any] | None) -> dict[str, Any]:
    """What the build's files weigh, and what pruning left of the parameters."""
    manifest = read_json(output / MANIFEST_NAME)
    pruning = training["pruning"] if training else manifest["pruning"]
    stats = pruning["stats"] if pruning else None
    engines = ModelConfig.from_manifest(output / MANIFEST_NAME).engines.files
    parameters = manifest["checkpoint"]["parameters"]
    return {
        "engine_bytes": sum(manifest["artefact_bytes"][name] for name in engines),
        "parameters": stats["active_params"] if stats else parameters,
        "sparsity": stats["sparsity"] if stats else 0.0,
        "target_sparsity": stats["target_sparsity"] if stats else 0.0,
        "gate": manifest["verification"]["gate"],
        "gate_passed": manifest["verification"]["passed"],
        "quantization": manifest["built"]["quantization"],
    }
