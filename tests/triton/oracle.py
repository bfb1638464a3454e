"""The checkpoint in PyTorch: what `transformers` makes of a text, and how it scores an answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

Settings = Mapping[str, float]
TIE = 1e-5  # difference of two sequences' log-probabilities that float32 cannot tell apart


class Oracle:
    """Plain `generate()` on one source at a time, in float32."""

    def __init__(self, checkpoint: Path, model: Any = None) -> None:
        """Take the checkpoint's tokenizer, and its model unless one is given."""
        if model is None:
            model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.float32)
        self._model = model.eval()
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def source_ids(self, text: str, *, special_as_text: bool = False) -> list[int]:
        """Ids of a text; special tokens that stand in it may be told to be mere letters.

        Parity is with the text whose line ends are LF.
        """
        text = re.sub(r"\r\n?", "\n", text)
        return list(self._tokenizer(text, split_special_tokens=special_as_text).input_ids)

    def generate(self, source_ids: Sequence[int], **settings: float) -> tuple[int, ...]:
        """Generated ids, decoder start excluded."""
        source = torch.tensor([source_ids])
        with torch.inference_mode():
            (ids,) = self._model.generate(
                source, attention_mask=torch.ones_like(source), do_sample=False, **settings
            )
        return tuple(ids[1:].tolist())

    def score(self, source_ids: Sequence[int], ids: Sequence[int], settings: Settings) -> float:
        """Sum of the ids' log-probabilities under the settings' rules, as beam search adds it."""
        source = torch.tensor([source_ids])
        prefix = torch.tensor([[self._model.config.decoder_start_token_id, *ids]])
        rules = self._rules(settings)
        with torch.inference_mode():
            logits = self._model(input_ids=source, decoder_input_ids=prefix[:, :-1]).logits[0]
        logprobs = logits.log_softmax(-1)
        return sum(
            rules(prefix[:, : step + 1], logprobs[step : step + 1])[0, id_].item()
            for step, id_ in enumerate(ids)
        )

    def is_tie(
        self,
        source_ids: Sequence[int],
        one: Sequence[int],
        other: Sequence[int],
        settings: Settings,
    ) -> bool:
        """Whether float32 sees no difference between two answers to one request."""
        length = min(len(one), len(other))
        if settings["num_beams"] == 1:
            # Greedy search follows the first choice; what comes after it does not compare.
            length = 1 + next(n for n in range(length) if one[n] != other[n])
            one, other = one[:length], other[:length]
        scores = [self.score(source_ids, ids, settings) for ids in (one, other)]
        penalty = settings["length_penalty"]
        normalised = [s / len(ids) ** penalty for s, ids in zip(scores, (one, other), strict=True)]
        return math.isclose(*normalised, rel_tol=0.0, abs_tol=TIE)

    def _rules(self, settings: Settings) -> Any:
        rules = LogitsProcessorList()
        if (penalty := settings.get("repetition_penalty", 1.0)) != 1.0:
            rules.append(RepetitionPenaltyLogitsProcessor(penalty))
        if size := int(settings.get("no_repeat_ngram_size", 3)):
            rules.append(NoRepeatNGramLogitsProcessor(size))
        return rules
