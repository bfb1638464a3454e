"""Trains kobart-mini from nothing on the synthetic corpus; see training/README.md.

Every example is new: the generator never repeats itself, so nothing is learned by heart. Dialogues
start without small talk and grow to their full length, because copying a value into the summary is
learned much faster from short ones.
"""

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm
from transformers import BartForConditionalGeneration

from builders.paths import DEFAULT_CHECKPOINT_FOLDER, KEPT_BUILDS
from training.batches import batches
from training.corpus.dialogue import CorpusConfig, generate
from training.evaluate_mini import score, summarize
from training.model import PAD_ID, export, new_model
from training.schedule import Progress, TrainingConfig, learning_rate
from training.tokenizer import build_tokenizer, save_tokenizer

log = logging.getLogger("train_mini")
NUM_VALIDATION = 48


def train_step(
    model: BartForConditionalGeneration,
    optimizer: torch.optim.Optimizer,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    """Make one step and return its loss, in nats per label token."""
    with torch.autocast("cpu", torch.bfloat16):
        mask = (input_ids != PAD_ID).long()
        loss = model(input_ids=input_ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    average_gradients(model)
    clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def average_gradients(model: torch.nn.Module) -> None:
    """Replace every gradient by its mean over the processes."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def agreed_s(seconds: float) -> float:
    """Return the mean of the processes' clocks, so that all follow one schedule."""
    clock = torch.tensor([seconds], dtype=torch.float64)
    dist.all_reduce(clock)
    return clock.item() / dist.get_world_size()


def validate(
    model: BartForConditionalGeneration, tokenizer: Tokenizer, progress: Progress
) -> dict[str, object]:
    """Return greedy scores on the first dev dialogues."""
    examples = list(islice(generate(CorpusConfig(split="dev")), NUM_VALIDATION))
    model.eval()
    dialogues = [e.dialogue for e in examples]
    summaries = summarize(model, tokenizer, dialogues, num_beams=1, max_new_tokens=48)
    model.train()
    scores = asdict(score(examples, summaries))
    log.info("step %d, %.0f s: %s", progress.step, progress.elapsed_s, scores)
    log.info("  reference: %s", examples[0].summary)
    log.info("  generated: %s", summaries[0])
    return {"step": progress.step, **scores}


@dataclass
class Run:
    """Everything that changes while training."""

    tokenizer: Tokenizer
    model: BartForConditionalGeneration
    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=Progress)
    history: list[dict[str, object]] = field(default_factory=list)
    loss: float = 0.0  # running mean, nats per label token

    @classmethod
    def start(cls, config: TrainingConfig) -> "Run":
        """Return a run at its first step, the same in every process."""
        torch.manual_seed(config.seed)
        tokenizer = build_tokenizer()
        model = new_model(tokenizer.get_vocab_size()).train()
        # PyTorch's fused attention is slow on CPUs at head_dim 48, in the backward pass above all.
        model.set_attn_implementation("eager")
        optimizer = torch.optim.AdamW(
            model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        return cls(tokenizer, model, optimizer)

    def restore(self, path: Path) -> None:
        """Go on where `save` left off; what was left of its chunk of examples is skipped."""
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.history, self.loss = state["history"], state["loss"]

    def save(self, path: Path) -> None:
        """Write everything that `restore` needs, atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "history": self.history,
            "loss": self.loss,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def step(self, config: TrainingConfig, input_ids: torch.Tensor, labels: torch.Tensor) -> None:
        """Make one step and advance the progress, its clock excepted."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.progress)
        loss = train_step(self.model, self.optimizer, input_ids, labels)
        self.loss += (loss - self.loss) * max(0.02, 1 / (self.progress.step + 1))
        self.progress.step += 1

    def checkpoint(self, state_file: Path, output: Path) -> None:
        """Validate, save the state and export the weights."""
        scores = validate(self.model, self.tokenizer, self.progress)
        self.history.append({"loss": round(self.loss, 4), **scores})
        self.save(state_file)
        export(self.model, output)
        save_tokenizer(self.tokenizer, output)


def train(config: TrainingConfig, run: Run, state_file: Path, output: Path) -> None:
    """Train to the end of the schedule, with checkpoints on the way, and state how it went."""
    is_main = dist.get_rank() == 0
    bar = tqdm(
        total=config.steps,
        initial=run.progress.step,
        unit="step",
        mininterval=5,
        disable=not is_main,
    )
    clock = time.monotonic()
    for input_ids, labels in batches(run.tokenizer, config, run.progress):
        run.step(config, input_ids, labels)
        run.progress.elapsed_s += agreed_s(time.monotonic() - clock)
        clock = time.monotonic()
        bar.update()
        bar.set_postfix(loss=f"{run.loss:.3f}", examples=run.progress.num_examples, refresh=False)
        done = run.progress.share(config) >= 1.0
        if is_main and (done or run.progress.step % config.validate_every == 0):
            run.checkpoint(state_file, output)
        if done:
            break
    bar.close()
    if is_main:
        write_history(output, config, run)


def write_history(output: Path, config: TrainingConfig, run: Run) -> None:
    """Write how the training went to metrics.json."""
    training = {
        "config": asdict(config),
        "progress": asdict(run.progress),
        "validation": run.history,
    }
    text = json.dumps({"training": training}, ensure_ascii=False, indent=2)
    (output / "metrics.json").write_text(text + "\n", encoding="utf-8")


def join_processes() -> None:
    """Join the processes of `torch.distributed.run`, one thread each, or run as the only one."""
    if dist.is_torchelastic_launched():
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]


def main() -> None:
    """Parse the command line and train."""
    defaults = TrainingConfig()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=DEFAULT_CHECKPOINT_FOLDER,
        metavar="DIR",
        help="folder of the checkpoint (default: %(default)s)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=KEPT_BUILDS / "train_mini" / "state.pt",
        metavar="FILE",
        help="what --resume goes on from (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from --state if it exists")
    parser.add_argument(
        "--steps", type=int, default=defaults.steps, help="of the optimizer (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, help="end the schedule at this time")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=defaults.learning_rate,
        help="peak, behind the warm-up (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-tokens",
        type=int,
        default=defaults.batch_tokens,
        help="padded source tokens of a step (default: %(default)s)",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = TrainingConfig(
        steps=args.steps,
        minutes=args.minutes,
        learning_rate=args.learning_rate,
        batch_tokens=args.batch_tokens,
    )
    join_processes()
    run = Run.start(config)
    if args.resume and args.state.exists():
        run.restore(args.state)
    train(config, run, args.state, args.output)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
