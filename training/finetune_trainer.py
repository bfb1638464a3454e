"""The training itself: Hugging Face's Seq2SeqTrainer, resumable to the bit on one machine."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Dataset
from transformers import (
    BartForConditionalGeneration,
    EarlyStoppingCallback,
    GenerationConfig,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from kobart_runtime.errors import ConfigError
from training.finetune_config import FinetuneConfig
from training.finetune_examples import Collator, Example, LengthGroupedSampler
from training.finetune_log import print_lines

WARMUP_SHARE = 0.05  # of all steps; without one where that is less than a step
LOGS_PER_EVALUATION = 10
KEPT_CHECKPOINTS = 2  # the best and the last


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a training went; the model holds the best weights."""

    num_steps: int
    num_epochs: float
    best_step: int | None  # None: it was shorter than --eval-steps, the last weights are taken
    best_dev_loss: float | None  # nats per token
    log: list[dict[str, Any]]  # the Trainer's


class GroupedTrainer(Seq2SeqTrainer):
    """A Seq2SeqTrainer whose batches hold pairs of similar length."""

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> LengthGroupedSampler:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        return LengthGroupedSampler(rows, self.args.train_batch_size, self.args.seed)


def train(
    model: BartForConditionalGeneration,
    config: FinetuneConfig,
    collator: Collator,
    train_rows: list[Example],
    dev_rows: list[Example],
    folder: Path,
    last_checkpoint: Path | None,
) -> Training:
    """Train a model in place, its masks kept.

    Args:
        model: On the CPU before and afterwards.
        config: Epochs, rates and lengths.
        collator: Makes the batches.
        train_rows: What is learnt.
        dev_rows: What the loss is measured on.
        folder: Gets the Trainer's checkpoints.
        last_checkpoint: Go on from this one; None: from the beginning.

    Raises:
        ConfigError: The weights became infinite.
    """
    # The Trainer saves the embedding under one of its names, and then misses the others.
    model._keys_to_ignore_on_save = _tied_names(model)
    model.generation_config = GenerationConfig()  # the checkpoint's own is kept by its file
    patience = config.early_stopping_patience
    stoppers: list[TrainerCallback] = [EarlyStoppingCallback(patience)] if patience else []
    sets: Any = train_rows, sorted(dev_rows, key=lambda row: len(row[0]))  # lists do as Datasets
    trainer = GroupedTrainer(
        model=model,
        args=_arguments(config, len(train_rows), folder),
        data_collator=collator,
        train_dataset=sets[0],
        eval_dataset=sets[1],
        callbacks=stoppers,
    )
    print_lines(trainer)
    trainer.train(resume_from_checkpoint=str(last_checkpoint) if last_checkpoint else None)
    cast(Any, model).to("cpu").eval()
    _check_finite(model, config)
    state = trainer.state
    return Training(
        num_steps=state.global_step,
        num_epochs=round(state.epoch, 3),
        best_step=state.best_global_step or None,
        best_dev_loss=state.best_metric,
        log=state.log_history,
    )


def _tied_names(model: BartForConditionalGeneration) -> set[str]:
    """Further names of the embedding: the encoder's, the decoder's and the head's weight."""
    shared = model.model.shared.weight
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, weight in named if weight is shared} - {"model.shared.weight"}


def _arguments(config: FinetuneConfig, num_pairs: int, folder: Path) -> Seq2SeqTrainingArguments:
    strategy = "epoch" if config.eval_steps is None else "steps"
    steps_per_epoch = math.ceil(num_pairs / config.batch_size)
    interval = config.eval_steps or steps_per_epoch
    # The Trainer rounds the warm-up up and begins it at 0: a single step would have no rate.
    has_warmup = WARMUP_SHARE * config.epochs * steps_per_epoch >= 1
    return Seq2SeqTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        warmup_steps=WARMUP_SHARE if has_warmup else 0,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        seed=config.seed,
        eval_strategy=strategy,
        save_strategy=strategy,
        eval_steps=interval,
        save_steps=interval,
        logging_steps=max(1, interval // LOGS_PER_EVALUATION),
        save_total_limit=KEPT_CHECKPOINTS,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        prediction_loss_only=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )


def _check_finite(model: BartForConditionalGeneration, config: FinetuneConfig) -> None:
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise ConfigError(
            f"the training diverged: weights are no longer finite at learning_rate "
            f"{config.learning_rate}; start anew with a lower one and --force"
        )
