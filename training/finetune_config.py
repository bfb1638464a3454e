"""The options of a fine-tuning: one dataclass behind the flags."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from builders.paths import DEFAULT_CHECKPOINT
from builders.prune_steps import PruneStep, parse_steps
from kobart_documents import ReadOptions
from kobart_documents.encodings import check_encoding
from kobart_documents.options import ENCODING_HELP, SUMMARY_COLUMN_HELP, TEXT_COLUMN_HELP
from kobart_runtime.errors import ConfigError


def _option(default: Any, kind: type, text: str, *, metavar: str = "N") -> Any:
    return field(default=default, metadata={"kind": kind, "help": text, "metavar": metavar})


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What to train, on what, and how."""

    checkpoint: str = _option(
        DEFAULT_CHECKPOINT,
        str,
        "folder or hub id of a BART checkpoint, pruned or not",
        metavar="DIR_OR_HUB_ID",
    )
    tokenizer: str | None = _option(
        None,
        str,
        "a tokenizer.json, or a folder with one, in the place of the checkpoint's own",
        metavar="FILE_OR_DIR",
    )
    adapter: str | None = _option(
        None, str, "folder of a peft adapter to merge into the weights first", metavar="DIR"
    )
    train: str = _option("", str, "pairs to train on, see below", metavar="FILE")
    dev: str | None = _option(
        None,
        str,
        "pairs for the loss that picks the best weights, and for ROUGE "
        "(default: dev.jsonl beside the checkpoint)",
        metavar="FILE",
    )
    text_column: str | None = _option(None, str, TEXT_COLUMN_HELP, metavar="NAME")
    summary_column: str | None = _option(None, str, SUMMARY_COLUMN_HELP, metavar="NAME")
    encoding: str | None = _option(None, str, ENCODING_HELP, metavar="NAME")
    output: str = _option("", str, "folder of the new checkpoint", metavar="DIR")
    prune: tuple[str, ...] = _option(
        (),
        tuple,
        "prune first; may be repeated, in the order given: magnitude=0.3, global=0.4, "
        "structured=0.2, layers=encoder:4,decoder:3, 2:4",
        metavar="STEP",
    )
    prune_layers: tuple[str, ...] = _option(
        (), tuple, "prune these layers alone; may be repeated: names or globs", metavar="GLOB"
    )
    epochs: float = _option(3.0, float, "passes over the training pairs")
    learning_rate: float = _option(3e-5, float, "peak, behind the warm-up", metavar="RATE")
    batch_size: int = _option(8, int, "pairs per optimizer step")
    max_source_length: int | None = _option(
        None,
        int,
        "source tokens; longer sources are truncated (default: 1024, or the model's positions "
        "if fewer)",
    )
    max_target_length: int = _option(
        128, int, "tokens of a summary, eos included; longer ones are truncated"
    )
    eval_steps: int | None = _option(
        None, int, "dev loss and a resumable state every N steps (default: after every epoch)"
    )
    early_stopping_patience: int = _option(
        3, int, "end after N such evaluations without a lower dev loss; 0: never early"
    )
    rouge_documents: int = _option(
        200, int, "at most N of the dev pairs are summarized for ROUGE, three times"
    )
    limit: int | None = _option(None, int, "at most N pairs of each file, to try things out")
    seed: int = _option(42, int, "of the order of the pairs and of dropout", metavar="SEED")

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: Names the field, its limit and the value.
        """
        for name in ("train", "output"):
            if not getattr(self, name):
                raise ConfigError(f"--{name} is needed")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a finite number above 0, got {value}")
        parse_steps(self.prune, self.prune_layers)
        if self.encoding is not None:
            check_encoding(self.encoding)

    @property
    def prune_steps(self) -> tuple[PruneStep, ...]:
        """The steps of `prune`, taken apart."""
        return parse_steps(self.prune, self.prune_layers)

    @property
    def reading(self) -> ReadOptions:
        """How the files of `train` and `dev` are read."""
        return ReadOptions(
            text_column=self.text_column,
            summary_column=self.summary_column,
            encoding=self.encoding,
        )

    @property
    def output_folder(self) -> Path:
        """Absolute path of the new checkpoint."""
        return Path(self.output).resolve()


LEAST = {
    "batch_size": 1,
    "max_source_length": 1,
    "max_target_length": 2,  # one token and eos
    "eval_steps": 1,
    "early_stopping_patience": 0,
    "rouge_documents": 1,
    "limit": 1,
    "seed": 0,
}
OPTIONS = {option.name: option for option in fields(FinetuneConfig)}
