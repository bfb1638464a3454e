"""What a model's loss is measured on: documents with their summaries, or made-up ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import BartForConditionalGeneration

from kobart_documents import read_pairs
from kobart_runtime.errors import DocumentError, InvalidArgumentError
from kobart_runtime.model_config import TokenIds
from kobart_runtime.tokenizer import Tokenizer

IGNORED = -100  # label that the loss skips, as in HF
MAX_DOCUMENTS = 16
MAX_SOURCE_IDS = 512  # of each document; the loss is to rank layers, not to be reported
MAX_SUMMARY_IDS = 128
BATCH_SIZE = 4
SYNTHETIC_SEED = 20252
SYNTHETIC_SHAPE = (8, 32)  # sources, ids in each
SYNTHETIC_STEPS = 16


@dataclass(frozen=True)
class LossBatch:
    """Sources and the ids that a model is to predict; all int64."""

    input_ids: Tensor  # [B, S]
    attention_mask: Tensor  # [B, S], 0 = padding
    decoder_input_ids: Tensor  # [B, T]
    labels: Tensor  # [B, T], IGNORED where nothing is to be predicted


def dev_batches(path: Path, tokenizer: Tokenizer, ids: TokenIds) -> list[LossBatch]:
    """The first documents of a file of pairs.

    Raises:
        DocumentError: The file cannot be read, or a text has no tokens; names the line.
    """
    file = read_pairs(path, limit=MAX_DOCUMENTS)
    pairs = []
    for pair, place in zip(file.pairs, file.places, strict=True):
        try:
            source, summary = (
                tokenizer.encode(text).input_ids.tolist() for text in (pair.text, pair.summary)
            )
        except InvalidArgumentError as error:
            raise DocumentError(f"{path}, {place}: {error}") from error
        pairs.append((source[:MAX_SOURCE_IDS], [*summary[:MAX_SUMMARY_IDS], *ids.eos[:1]]))
    return [
        collate(pairs[start : start + BATCH_SIZE], ids.decoder_start, ids.pad)
        for start in range(0, len(pairs), BATCH_SIZE)
    ]


@torch.no_grad()
def synthetic_batches(model: BartForConditionalGeneration) -> list[LossBatch]:
    """Random sources, and what the model as it is answers greedily: the text to stay close to."""
    generator = torch.Generator().manual_seed(SYNTHETIC_SEED)
    sources = torch.randint(model.config.vocab_size, SYNTHETIC_SHAPE, generator=generator)
    sources = sources[:, : model.config.max_position_embeddings].to(model.device)
    encoded = (model.get_encoder()(input_ids=sources).last_hidden_state,)
    answer = torch.full((len(sources), 1), _start_id(model), device=model.device)
    for _ in range(min(SYNTHETIC_STEPS, model.config.max_position_embeddings)):
        logits = model(encoder_outputs=encoded, decoder_input_ids=answer, use_cache=False).logits
        answer = torch.cat([answer, logits[:, -1:].argmax(-1)], dim=1)
    return [LossBatch(sources, torch.ones_like(sources), answer[:, :-1], answer[:, 1:])]


def _start_id(model: BartForConditionalGeneration) -> int:
    """Any fixed id would do: checkpoints of transformers 4 may name none."""
    start = model.config.decoder_start_token_id
    return 0 if start is None else int(start)


def collate(pairs: Sequence[tuple[list[int], list[int]]], start: int, pad: int) -> LossBatch:
    """Pad documents to one batch.

    Args:
        pairs: Source ids, and the ids to predict with eos behind them.
        start: The decoder's first id, in front of the summaries.
        pad: Fills the sources and the decoder's input up to the longest.
    """
    sources = [torch.tensor(source) for source, _ in pairs]
    labels = [torch.tensor(label) for _, label in pairs]
    decoder_inputs = [torch.tensor([start, *label[:-1]]) for _, label in pairs]
    return LossBatch(
        _pad(sources, pad),
        _pad([torch.ones_like(source) for source in sources], 0),
        _pad(decoder_inputs, pad),
        _pad(labels, IGNORED),
    )


def _pad(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
