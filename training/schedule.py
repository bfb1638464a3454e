"""How a training goes on: its settings, where it stands, and what follows from the two."""

from dataclasses import asdict, dataclass

from training.corpus.dialogue import CorpusConfig


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train.

    Raises:
        ValueError: A number is not positive.
    """

    steps: int = 5_230
    minutes: float | None = None  # if given, the schedule ends at this time, if not sooner
    learning_rate: float = 1.5e-3
    warmup_steps: int = 400
    batch_tokens: int = 4_000  # padded source tokens per step
    chunk_size: int = 1_024  # examples generated and sorted by length at a time
    small_talk_from: float = 0.1  # share of the training after which small talk sets in
    small_talk_full: float = 0.4  # share of the training after which there is all of it
    validate_every: int = 1_000  # steps
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
