"""Dialogues with reference summaries, reproducible from a seed."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from typing import Literal

from training.corpus.scripts import Exchange, Outcome, outcomes, small_talk
from training.corpus.values import Cast

Split = Literal["train", "dev", "test"]
FILLERS = ("음, ", "아, ", "저기, ", "그, ")
SHARE_FILLER = 0.12
SHARE_OPTIONAL = 0.5
MAX_SMALL_TALK = 30  # exchanges per dialogue


@dataclass(frozen=True)
class Example:
    """A dialogue, its reference summary, the values to keep and the values to leave out."""

    id: str
    dialogue: str
    summary: str
    situation: str
    slots: dict[str, str]
    distractors: list[str]

    def to_json(self) -> dict[str, object]:
        """Return the fields as they are written to a JSONL file."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Which dialogues to generate.

    Raises:
        ValueError: The mean of small-talk exchanges is negative.
    """

    seed: str = "kobart-mini"
    split: Split = "train"
    held_out_situation: bool = False
    held_out_names: bool = False
    mean_small_talk: float = 7.0  # exchanges per dialogue, geometrically distributed

    def __post_init__(self) -> None:
        """Check the mean."""
        if self.mean_small_talk < 0:
            raise ValueError(f"mean_small_talk must not be negative, got {self.mean_small_talk}")

    @property
    def name(self) -> str:
        """What the examples' ids begin with: the split, or what is held out of training."""
        if self.held_out_situation:
            return "heldout_situation"
        return "heldout_names" if self.held_out_names else self.split


def split_of(outcome: Outcome, slots: Mapping[str, str]) -> Split:
    """Return the split that a slot combination belongs to: 2 % dev, 2 % test, the rest train."""
    combination = "|".join([outcome.situation, *(f"{key}={slots[key]}" for key in sorted(slots))])
    bucket = int.from_bytes(hashlib.sha256(combination.encode()).digest()[:4], "big") % 100
    return "dev" if bucket < 2 else "test" if bucket < 4 else "train"


def generate(config: CorpusConfig, start: int = 0) -> Iterator[Example]:
    """Yield examples without end; the i-th depends on the configuration and i alone.

    Args:
        config: Which dialogues to generate.
        start: Index of the first example, in examples.
    """
    pool = outcomes(config.held_out_situation)
    for index in count(start):
        rng = random.Random(f"{config.seed}-{config.name}-{index}")
        outcome = pool[index % len(pool)] if config.split != "train" else rng.choice(pool)
        yield _example(config, outcome, rng, index)


def _example(config: CorpusConfig, outcome: Outcome, rng: random.Random, index: int) -> Example:
    cast, summary = _draw_slots(config, outcome, rng)
    slots = {key: str(value) for key, value in cast.items()}
    turns = _write(outcome, cast, rng, config.mean_small_talk)
    return Example(
        id=f"{config.name}-{index:04d}",
        dialogue=_label_speakers(turns, rng),
        summary=summary,
        situation=f"{outcome.situation}/{outcome.name}",
        slots=slots,
        distractors=cast.distractors(),
    )


def _draw_slots(config: CorpusConfig, outcome: Outcome, rng: random.Random) -> tuple[Cast, str]:
    """Draw slot values until their combination belongs to the wanted split."""
    while True:
        cast = Cast(rng, config.held_out_names)
        summary = outcome.summary.format_map(cast)
        if split_of(outcome, cast) == config.split:
            return cast, summary


def _write(
    outcome: Outcome, cast: Cast, rng: random.Random, mean_small_talk: float
) -> list[tuple[int, str]]:
    """Return the turns (speaker, text): the script with small talk between its exchanges."""
    script = [e for e in outcome.script if not e.optional or rng.random() < SHARE_OPTIONAL]
    blocks = [_speak(exchange, cast, rng) for exchange in script]
    pool = small_talk(outcome.bank)
    for exchange in rng.sample(pool, _num_small_talk(rng, mean_small_talk)):
        cast.forget_distractors()
        blocks.insert(rng.randint(0, len(blocks)), _speak(exchange, cast, rng))
    return [turn for block in blocks for turn in block]


def _num_small_talk(rng: random.Random, mean: float) -> int:
    return min(int(rng.expovariate(1 / mean)), MAX_SMALL_TALK) if mean else 0


def _speak(exchange: Exchange, cast: Cast, rng: random.Random) -> list[tuple[int, str]]:
    return [
        (line.speaker, _filler(rng) + rng.choice(line.phrasings).format_map(cast))
        for line in exchange.lines
    ]


def _filler(rng: random.Random) -> str:
    return rng.choice(FILLERS) if rng.random() < SHARE_FILLER else ""


def _label_speakers(turns: list[tuple[int, str]], rng: random.Random) -> str:
    labels = ["#Person1#", "#Person2#"]
    if rng.random() < 0.5:
        labels.reverse()
    return "\n".join(f"{labels[speaker - 1]}: {text}" for speaker, text in turns)
