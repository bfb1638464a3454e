"""Batches of freshly generated examples, every process's share of them."""

import random
from collections.abc import Iterator
from itertools import islice

import torch
import torch.distributed as dist
from tokenizers import Tokenizer

from training.corpus.dialogue import CorpusConfig, Example, generate
from training.evaluate_mini import pad
from training.model import EOS_ID
from training.schedule import Progress, TrainingConfig, mean_small_talk

IGNORED = -100  # label that the loss skips, as in HF


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
