"""Pairs of text to what the model is trained on: source ids, labels, padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from builders.checkpoint import Checkpoint
from builders.prune_documents import collate
from kobart_documents import PairFile
from kobart_runtime.errors import ConfigError, InvalidArgumentError
from kobart_runtime.model_config import TokenizerConfig
from kobart_runtime.tokenizer import Tokenizer
from training.finetune_config import FinetuneConfig

USUAL_SOURCE_LENGTH = 1024

Example = tuple[list[int], list[int]]  # source ids; label ids: the summary's, then eos


@dataclass(frozen=True)
class Examples:
    """The pairs of a file as ids, and how many of them were too long."""

    rows: list[Example]
    num_truncated_sources: int
    num_truncated_summaries: int


class ExampleEncoder:
    """Text to ids as a build's service makes them: its tokenizer, and no control tokens in text."""

    def __init__(self, checkpoint: Checkpoint, config: FinetuneConfig) -> None:
        """Load the tokenizers.

        Raises:
            ConfigError: A length is above the model's positions.
            KobartError: The tokenizer does not fit the model.
        """
        positions = checkpoint.max_positions
        source_length = config.max_source_length or min(USUAL_SOURCE_LENGTH, positions)
        lengths = {
            "max_source_length": source_length,
            "max_target_length": config.max_target_length,
        }
        for name, length in lengths.items():
            if length > positions:
                raise ConfigError(f"{name} must be 1..{positions}, the model's positions: {length}")
        self._eos = checkpoint.ids.eos[0]
        self.source, self._summary = (
            Tokenizer(
                checkpoint.tokenizer_path,
                TokenizerConfig(),
                checkpoint.ids,
                max_source_length=length,
                vocab_size=checkpoint.vocab_size,
            )
            for length in (source_length, config.max_target_length - 1)
        )

    def encode(self, file: PairFile) -> Examples:
        """The file's pairs, in its order.

        Raises:
            ConfigError: A text has no tokens; names the line.
        """
        rows, truncated = [], [0, 0]
        for pair, place in zip(file.pairs, file.places, strict=True):
            try:
                source, summary = (
                    self.source.encode(pair.text),
                    self._summary.encode(pair.summary),
                )
            except InvalidArgumentError as error:
                raise ConfigError(f"{file.path}, {place}: {error}") from error
            rows.append((source.input_ids.tolist(), [*summary.input_ids.tolist(), self._eos]))
            truncated[0] += source.truncated
            truncated[1] += summary.truncated
        return Examples(rows, *truncated)


class Collator:
    """Examples to the tensors of one batch, with the checkpoint's own start and padding ids."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._start, self._pad = checkpoint.ids.decoder_start, checkpoint.ids.pad

    def __call__(self, rows: Sequence[Example]) -> dict[str, Tensor]:
        """The model's arguments, all int64; see `LossBatch`."""
        return vars(collate(rows, self._start, self._pad))


class LengthGroupedSampler(Sampler[int]):
    """A new order for each epoch, in which the pairs of a batch have similar source lengths.

    The order depends on the seed and the epoch alone, so that a resumed run goes on with the
    pairs that the interrupted one would have seen; transformers' own sampler draws from the
    global generator.
    """

    def __init__(self, rows: Sequence[Example], batch_size: int, seed: int) -> None:
        self._lengths = [len(source) for source, _ in rows]
        self._batch_size, self._seed, self._epoch = batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        yield from get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
