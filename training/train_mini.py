"""Trains kobart-mini from nothing on the synthetic corpus; see training/README.md.

Every example is new: the generator never repeats itself, so nothing is learned by heart. Dialogues
start without small talk and grow to their full length, because copying a value into the summary is
learned much faster from short ones.
"""

import argparse
import json
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm
from transformers import BartForConditionalGeneration

from training.corpus.dialogue import CorpusConfig, Example, generate
from training.evaluate_mini import DEFAULT_CHECKPOINT, pad, score, summarize
from training.model import EOS_ID, PAD_ID, export, new_model
from training.tokenizer import build_tokenizer, save_tokenizer

log = logging.getLogger("train_mini")
IGNORED = -100  # label that the loss skips, as in HF
NUM_VALIDATION = 48


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train.

    Raises:
        ValueError: A number is not positive.
    """

    steps: int = 20_000
    minutes: float | None = None  # if given, the schedule ends at this time, if not sooner
    learning_rate: float = 1.5e-3
    warmup_steps: int = 400
    batch_tokens: int = 4_000  # padded source tokens per step
    chunk_size: int = 1_024  # examples generated and sorted by length at a time
    small_talk_from: float = 0.1  # share of the training after which small talk sets in
    small_talk_full: float = 0.4  # share of the training after which there is all of it
    validate_every: int = 500  # steps
    seed: int = 1

    def __post_init__(self) -> None:
        """Check that every number is positive."""
        for name, value in asdict(self).items():
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")


@dataclass
class Progress:
    """Where the training stands; saved with the weights."""

    step: int = 0
    num_examples: int = 0
    elapsed_s: float = 0.0

    def share(self, config: TrainingConfig) -> float:
        """Return the share of the training that is done, in 0..1."""
        by_time = self.elapsed_s / (60 * config.minutes) if config.minutes else 0.0
        return min(1.0, max(self.step / config.steps, by_time))


def learning_rate(config: TrainingConfig, progress: Progress) -> float:
    """Return the rate of the next step: linear warm-up, then linear decay to zero."""
    warm = min(1.0, (progress.step + 1) / config.warmup_steps)
    return config.learning_rate * warm * (1.0 - progress.share(config))


def mean_small_talk(config: TrainingConfig, progress: Progress) -> float:
    """Return how much small talk the next dialogues have, in exchanges: none, then ever more."""
    ramp = (progress.share(config) - config.small_talk_from) / (
        config.small_talk_full - config.small_talk_from
    )
    return CorpusConfig().mean_small_talk * min(1.0, max(0.0, ramp))


def batches(
    tokenizer: Tokenizer, config: TrainingConfig, progress: Progress
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches without end, each of dialogues of about the same length.

    Yields:
        Source ids int64[B, S] padded with `PAD_ID`, label ids int64[B, T] padded with `IGNORED`.
    """
    while True:
        corpus = CorpusConfig(mean_small_talk=mean_small_talk(config, progress))
        examples = list(islice(generate(corpus, progress.num_examples), config.chunk_size))
        progress.num_examples += len(examples)
        for group in _bucketed(tokenizer, examples, config.batch_tokens):
            mine = group[dist.get_rank() :: dist.get_world_size()]
            yield pad([source for source, _ in mine]), pad([label for _, label in mine], IGNORED)


def _bucketed(
    tokenizer: Tokenizer, examples: list[Example], batch_tokens: int
) -> list[list[tuple[list[int], list[int]]]]:
    """Return the examples as (source ids, label ids), in shuffled groups of similar length."""
    sources = tokenizer.encode_batch([example.dialogue for example in examples])
    targets = tokenizer.encode_batch([example.summary for example in examples])
    pairs = [(s.ids, [*t.ids, EOS_ID]) for s, t in zip(sources, targets, strict=True)]
    groups: list[list[tuple[list[int], list[int]]]] = [[]]
    for pair in sorted(pairs, key=lambda pair: len(pair[0])):
        if (len(groups[-1]) + 1) * len(pair[0]) > batch_tokens:
            groups.append([])
        groups[-1].append(pair)
    whole = [group for group in groups if len(group) >= dist.get_world_size()]
    random.Random(examples[0].dialogue).shuffle(whole)
    return whole


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


def save_state(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    history: list[dict[str, object]],
) -> None:
    """Write everything that `--resume` needs, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
        "history": history,
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def train(config: TrainingConfig, state_file: Path, resume: bool, output: Path) -> None:
    """Train, validate now and then, and export the weights to `output`."""
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer()
    model = new_model(tokenizer.get_vocab_size()).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        fused=True,
    )
    progress, history = Progress(), []
    if resume and state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress, history = Progress(**state["progress"]), state["history"]
    is_main = dist.get_rank() == 0
    bar = tqdm(
        total=config.steps, initial=progress.step, unit="step", mininterval=5, disable=not is_main
    )
    loss, clock = 0.0, time.monotonic()
    for input_ids, labels in batches(tokenizer, config, progress):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, progress)
        loss += 0.02 * (train_step(model, optimizer, input_ids, labels) - loss)
        progress.step += 1
        progress.elapsed_s += agreed_s(time.monotonic() - clock)
        clock = time.monotonic()
        bar.update()
        bar.set_postfix(loss=f"{loss:.3f}", examples=progress.num_examples, refresh=False)
        done = progress.share(config) >= 1.0
        if is_main and (done or progress.step % config.validate_every == 0):
            history.append({"loss": round(loss, 4), **validate(model, tokenizer, progress)})
            save_state(state_file, model, optimizer, progress, history)
            export(model, output)
            save_tokenizer(tokenizer, output)
        if done:
            break
    bar.close()
    if is_main:
        write_history(output, config, progress, history)


def write_history(
    output: Path, config: TrainingConfig, progress: Progress, history: list[dict[str, object]]
) -> None:
    """Write how the training went to metrics.json."""
    training = {"config": asdict(config), "progress": asdict(progress), "validation": history}
    text = json.dumps({"training": training}, ensure_ascii=False, indent=2)
    (output / "metrics.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Parse the command line and train."""
    defaults = TrainingConfig()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument("--state", type=Path, default=Path("build/train_mini/state.pt"))
    parser.add_argument("--resume", action="store_true", help="go on from --state if it exists")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--minutes", type=float, help="end the schedule at this time")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--batch-tokens", type=int, default=defaults.batch_tokens)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = TrainingConfig(
        steps=args.steps,
        minutes=args.minutes,
        learning_rate=args.learning_rate,
        batch_tokens=args.batch_tokens,
    )
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    train(config, args.state, args.resume, args.output)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
