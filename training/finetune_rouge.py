"""ROUGE-L of a model on the dev pairs, summarized as a server would summarize them."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from typing import Any, cast

import torch
from transformers import BartForConditionalGeneration

from builders.checkpoint import Checkpoint
from client.rouge import RougeL, rouge_l_means
from kobart_documents import Pair
from kobart_runtime.settings import GenerationSettings
from training.evaluate_mini import generate_ids
from training.finetune_examples import ExampleEncoder


class RougeJudge:
    """Scores models that answer with the same ids and settings on the same pairs."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        encoder: ExampleEncoder,
        pairs: tuple[Pair, ...],
        max_target_length: int,
    ) -> None:
        """Encode the dialogues.

        Args:
            checkpoint: Whose ids and generation defaults are used.
            encoder: How the dialogues become ids.
            pairs: What is summarized, and the references.
            max_target_length: Most tokens of a summary.
        """
        defaults = checkpoint.defaults
        self.settings = replace(
            defaults, max_new_tokens=min(defaults.max_new_tokens, max_target_length)
        )
        self._checkpoint, self._decode = checkpoint, encoder.source.decode
        self._sources = [encoder.source.encode(pair.text).input_ids.tolist() for pair in pairs]
        self._references = [pair.summary for pair in pairs]

    @property
    def num_documents(self) -> int:
        """How many dialogues are summarized."""
        return len(self._sources)

    def score(self, model: BartForConditionalGeneration) -> RougeL:
        """Summarize on the GPU if there is one; the model is on the CPU before and afterwards."""
        movable = cast(Any, model.eval())
        movable.to("cuda" if torch.cuda.is_available() else "cpu")
        flags = _generate_flags(self._checkpoint, self.settings)
        fill = self._checkpoint.ids.pad
        ids = generate_ids(model, self._sources, fill=fill, progress=sys.stderr.isatty(), **flags)
        movable.to("cpu")
        return rouge_l_means(self._references, [self._decode(row) for row in ids])


def _generate_flags(checkpoint: Checkpoint, settings: GenerationSettings) -> dict[str, Any]:
    ids = checkpoint.ids
    flags = {**asdict(settings), "do_sample": False, "max_length": None}
    if settings.num_beams == 1:  # beams' flags alone: generate() would complain
        del flags["early_stopping"], flags["length_penalty"]
    return {
        **flags,
        "bos_token_id": ids.bos,
        "eos_token_id": list(ids.eos),
        "pad_token_id": ids.pad,
        "decoder_start_token_id": ids.decoder_start,
        "forced_bos_token_id": ids.forced_bos,
        "forced_eos_token_id": ids.forced_eos,
    }
