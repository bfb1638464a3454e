"""`transformers` `generate()`, and what it would give for a sequence that it did not choose."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from transformers import BartForConditionalGeneration, LogitsProcessorList
from transformers.generation.logits_process import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from kobart_runtime.model_config import TokenIds
from kobart_runtime.settings import GenerationSettings


class Oracle:
    """One checkpoint in PyTorch, fp32."""

    def __init__(self, model: BartForConditionalGeneration, ids: TokenIds) -> None:
        self._model: Any = model
        self._ids = ids

    def generate(
        self, sources: list[np.ndarray], settings: GenerationSettings
    ) -> list[tuple[int, ...]]:
        """Generated ids of each source, from one padded batch.

        Padding after a sequence's end is cut off: everything behind the first eos, for the
        decoder start token is not counted.
        """
        longest = max(len(source) for source in sources)
        input_ids = torch.full((len(sources), longest), self._ids.pad)
        attention_mask = torch.zeros_like(input_ids)
        for row, source in enumerate(sources):
            input_ids[row, : len(source)] = torch.from_numpy(source)
            attention_mask[row, : len(source)] = 1
        with torch.inference_mode():
            output = self._model.generate(
                input_ids, attention_mask=attention_mask, **self._flags(settings)
            )
        return [self._cut(row[1:]) for row in output.tolist()]

    def gap(
        self,
        source: np.ndarray,
        settings: GenerationSettings,
        theirs: tuple[int, ...],
        ours: tuple[int, ...],
    ) -> float:
        """By how much `generate()` preferred its own answer to ours.

        Greedy search: between the two tokens where the answers part. Beam search: between the
        two final scores.
        """
        if settings.num_beams == 1:
            parting = next(i for i, (a, b) in enumerate(zip(theirs, ours)) if a != b)  # noqa: B905
            scores = self._processed(source, settings, theirs)[parting]
            return float(scores[theirs[parting]] - scores[ours[parting]])
        return self._beam_score(source, settings, theirs) - self._beam_score(source, settings, ours)

    def _beam_score(
        self, source: np.ndarray, settings: GenerationSettings, ids: tuple[int, ...]
    ) -> float:
        scores = self._processed(source, settings, ids)
        total = sum(float(scores[step][token]) for step, token in enumerate(ids))
        return float(total / len(ids) ** settings.length_penalty)

    def _processed(
        self, source: np.ndarray, settings: GenerationSettings, ids: tuple[int, ...]
    ) -> list[torch.Tensor]:
        """What the rules leave of the model's scores at each step along `ids`."""
        decoder_input_ids = torch.tensor([[self._ids.decoder_start, *ids]])
        with torch.inference_mode():
            logits = self._model(
                input_ids=torch.from_numpy(source)[None].long(),
                decoder_input_ids=decoder_input_ids,
            ).logits[0]
        scores = logits if settings.num_beams == 1 else torch.log_softmax(logits, dim=-1)
        processors: Any = self._processors(settings)
        return [
            processors(decoder_input_ids[:, : step + 1], scores[step : step + 1].clone())[0]
            for step in range(len(ids))
        ]

    def _processors(self, settings: GenerationSettings) -> LogitsProcessorList:
        processors = LogitsProcessorList()
        if settings.repetition_penalty != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(float(settings.repetition_penalty)))
        if settings.no_repeat_ngram_size:
            processors.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
        if settings.min_new_tokens:
            eos = torch.tensor(self._ids.eos)
            processors.append(MinNewTokensLengthLogitsProcessor(1, settings.min_new_tokens, eos))
        if self._ids.forced_bos is not None:
            processors.append(ForcedBOSTokenLogitsProcessor(self._ids.forced_bos))
        if self._ids.forced_eos is not None:
            processors.append(
                ForcedEOSTokenLogitsProcessor(settings.max_new_tokens + 1, self._ids.forced_eos)
            )
        return processors

    def _flags(self, settings: GenerationSettings) -> dict[str, Any]:
        flags = {**asdict(settings), "do_sample": False}
        flags["repetition_penalty"] = float(settings.repetition_penalty)
        if settings.num_beams == 1:
            del flags["early_stopping"], flags["length_penalty"]
        ids = self._ids
        return {
            **flags,
            "bos_token_id": ids.bos,
            "eos_token_id": list(ids.eos),
            "pad_token_id": ids.pad,
            "decoder_start_token_id": ids.decoder_start,
            "forced_bos_token_id": ids.forced_bos,
            "forced_eos_token_id": ids.forced_eos,
        }

    def _cut(self, ids: list[int]) -> tuple[int, ...]:
        """Without the padding that a longer neighbour in the batch causes."""
        ends = [position for position, token in enumerate(ids) if token in self._ids.eos]
        # A forced end of another id than eos is followed by nothing: it fills the whole row.
        return tuple(ids[: ends[0] + 1] if ends else ids)
