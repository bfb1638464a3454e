"""The fine-tuning itself: load, measure, prune, measure, train, write, measure what was written."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from builders.checkpoint import RANDOM_CHECKPOINT, Checkpoint, load_checkpoint
from builders.checkpoint_files import DEV_FILE, CheckpointFiles, find_files
from builders.disk import check_room, disk_errors
from builders.prune_checkpoint import prune_checkpoint
from builders.prune_ledger import num_params
from builders.special_ids import IdOverrides
from builders.staging import check_output, staged
from kobart_documents import PairFile, ReadOptions, read_pairs
from kobart_runtime.errors import ConfigError
from training.finetune_config import FinetuneConfig
from training.finetune_examples import Collator, ExampleEncoder, Examples
from training.finetune_masks import mask_zeros, unmask
from training.finetune_output import write_checkpoint, write_json
from training.finetune_rouge import RougeJudge
from training.finetune_run import Run
from training.finetune_trainer import Training, train

REPORT_FILE = "finetune.json"
PACKAGES = ("accelerate", "numpy", "safetensors", "tokenizers", "torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that a fine-tuning is made from."""

    config: FinetuneConfig
    checkpoint: Checkpoint  # its model is changed in place
    files: CheckpointFiles
    train: PairFile
    dev: PairFile
    encoder: ExampleEncoder
    train_examples: Examples
    dev_examples: Examples
    judge: RougeJudge

    @classmethod
    def load(cls, config: FinetuneConfig) -> Inputs:
        """Read the files and the checkpoint.

        Raises:
            KobartError: One of them cannot be used.
        """
        train_file = read_pairs(Path(config.train), config.reading, config.limit)
        dev_file = (
            read_pairs(Path(config.dev), config.reading, config.limit) if config.dev else None
        )
        if config.checkpoint == RANDOM_CHECKPOINT:
            raise ConfigError(f"{config.checkpoint} has random weights: give a trained checkpoint")
        files = find_files(config.checkpoint)
        dev_file = dev_file or _read_shipped(config, files)  # before the weights are loaded
        checkpoint = load_checkpoint(
            config.checkpoint, IdOverrides(), tokenizer=config.tokenizer, adapter=config.adapter
        )
        encoder = ExampleEncoder(checkpoint, config)
        judged = dev_file.pairs[: config.rouge_documents]
        return cls(
            config=config,
            checkpoint=checkpoint,
            files=files,
            train=train_file,
            dev=dev_file,
            encoder=encoder,
            train_examples=encoder.encode(train_file),
            dev_examples=encoder.encode(dev_file),
            judge=RougeJudge(checkpoint, encoder, judged, config.max_target_length),
        )

    def describe(self) -> dict[str, Any]:
        """What a run that goes on from another's state must have in common with it."""
        return {
            "checkpoint": {
                "source": self.checkpoint.source,
                "files": self.checkpoint.files,
                "adapter": asdict(self.checkpoint.adapter) if self.checkpoint.adapter else None,
            },
            "settings": asdict(self.config),
            "train": _describe_file(self.train, self.train_examples),
            "dev": _describe_file(self.dev, self.dev_examples),
        }


def finetune(config: FinetuneConfig, *, resume: bool = False, force: bool = False) -> Path:
    """Fine-tune a checkpoint.

    Args:
        config: What, on what, how.
        resume: Go on from the last checkpoint of an interrupted run of the same output.
        force: Replace the output, or an interrupted run of it.

    Returns:
        The new checkpoint's folder; it appears whole or not at all.

    Raises:
        KobartError: An input cannot be used, or the output must not be replaced.
    """
    output, run = config.output_folder, Run(config.output_folder)
    check_output(output, force=force, marker=REPORT_FILE)
    if run.is_begun and not (resume or force):
        raise ConfigError(
            f"an interrupted run lies in {run.folder}: give --resume to go on with it, or "
            "--force to start anew"
        )
    inputs = Inputs.load(config)
    measured = run.resume(inputs.describe()) if resume else None
    with disk_errors(output):
        measured = _measure_and_prune(inputs, run, measured)
        least_bytes = 4 * num_params(inputs.checkpoint.model)
        check_room(output, least_bytes)  # before the training
        training = _train(inputs, run)
    with staged(output, force=force, marker=REPORT_FILE, least_bytes=least_bytes) as folder:
        _write(inputs, folder, measured, training)
    run.end()
    print(f"written: {output}")
    return output


def _read_shipped(config: FinetuneConfig, files: CheckpointFiles) -> PairFile:
    path = files.folder / DEV_FILE
    if not path.is_file():
        raise ConfigError(f"{config.checkpoint} ships no {DEV_FILE}: give pairs by --dev FILE")
    print(f"dev pairs: {path}, which the checkpoint ships")
    # The columns and the encoding that were asked for are those of the user's own files.
    return read_pairs(path, ReadOptions(), config.limit)


def _describe_file(file: PairFile, examples: Examples) -> dict[str, Any]:
    return {
        "path": str(file.path),
        "sha256": file.sha256,
        "columns": list(file.columns),
        "num_pairs": len(file.pairs),
        "num_truncated_sources": examples.num_truncated_sources,
        "num_truncated_summaries": examples.num_truncated_summaries,
    }


def _measure_and_prune(inputs: Inputs, run: Run, measured: dict[str, Any] | None) -> dict[str, Any]:
    """Prune the model as asked; measure it before and behind that, unless a first run did."""
    config, checkpoint, judge = inputs.config, inputs.checkpoint, inputs.judge
    before = None if measured else _rouge(judge, checkpoint, "before")
    pruning, after_pruning = None, None
    if config.prune_steps:
        patterns = config.prune_layers or None
        pruning = prune_checkpoint(checkpoint, config.prune_steps, patterns, inputs.encoder.source)
        print(*pruning.lines, sep="\n")
        after_pruning = None if measured else _rouge(judge, checkpoint, "after pruning")
    if measured is not None:
        return measured
    measured = {
        "rouge_l": {"before": before, "after_pruning": after_pruning},
        "pruning": asdict(pruning) if pruning else None,
    }
    run.begin(inputs.describe(), measured)
    return measured


def _rouge(judge: RougeJudge, checkpoint: Checkpoint, when: str) -> dict[str, float]:
    scores = judge.score(checkpoint.model)
    print(f"ROUGE-L {when}: {scores.characters:.4f} on characters, {scores.words:.4f} on words")
    return asdict(scores)


def _train(inputs: Inputs, run: Run) -> Training:
    model, config = inputs.checkpoint.model, inputs.config
    num_masked = mask_zeros(model)
    print(
        f"training on {len(inputs.train.pairs):,} pairs, dev loss on {len(inputs.dev.pairs):,}; "
        f"{num_masked:,} weights are zero and stay so"
    )
    training = train(
        model,
        config,
        Collator(inputs.checkpoint),
        inputs.train_examples.rows,
        inputs.dev_examples.rows,
        run.folder,
        run.last_checkpoint,
    )
    unmask(model)
    return training


def _write(inputs: Inputs, folder: Path, measured: dict[str, Any], training: Training) -> None:
    """Write the checkpoint, score it as read back, and write the report."""
    write_checkpoint(folder, inputs.checkpoint, inputs.files, inputs.dev.pairs)
    written = load_checkpoint(str(folder), IdOverrides())
    rouge = {**measured["rouge_l"], "after_training": _rouge(inputs.judge, written, "after")}
    report = {
        **inputs.describe(),
        "ids": asdict(written.ids),
        "generation": asdict(inputs.judge.settings),
        "rouge_l": {"num_documents": inputs.judge.num_documents, **rouge},
        "pruning": measured["pruning"],
        "training": asdict(training),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "machine": _machine(),
    }
    write_json(folder / REPORT_FILE, report)


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cores = len(os.sched_getaffinity(0))
    return {"architecture": platform.machine(), "cores": cores, "gpu": gpu}
