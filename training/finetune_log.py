"""A training's log as lines for people, in place of the Trainer's dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)


class LineLog(TrainerCallback):
    """Prints one line an entry of the log."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """See `TrainerCallback`."""
        line = log_line(logs or {}, state.global_step, state.max_steps)
        if line and state.is_world_process_zero:
            with tqdm.external_write_mode():
                print(line, flush=True)


class BareProgress(ProgressCallback):
    """The progress bar alone."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `LineLog` prints."""


def print_lines(trainer: Trainer) -> None:
    """Have a trainer print lines; its progress bar stays if it has one."""
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(BareProgress())
    trainer.add_callback(LineLog())


def log_line(logs: Mapping[str, Any], step: int, num_steps: int) -> str:
    """One entry of the Trainer's log as a line; empty if there is nothing to say.

    Args:
        logs: Losses in nats per token.
        step: Optimizer steps so far.
        num_steps: Of the whole training.
    """
    parts = []
    if "loss" in logs:
        parts.append(f"loss {logs['loss']:.4f}")
    if "learning_rate" in logs:
        parts.append(f"learning rate {logs['learning_rate']:.3g}")
    if "eval_loss" in logs:
        parts.append(f"dev loss {logs['eval_loss']:.4f}")
    if "train_runtime" in logs:
        parts.append(
            f"trained in {logs['train_runtime']:,.0f} s, mean loss {logs['train_loss']:.4f}"
        )
    return f"step {step:,} of {num_steps:,}: {', '.join(parts)}" if parts else ""
