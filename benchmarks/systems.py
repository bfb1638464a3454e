"""The systems that are compared: each summarises a batch of sources and returns its tokens."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from builders.checkpoint import Checkpoint
from kobart_runtime.errors import KobartError
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import MANIFEST_NAME, ModelConfig
from kobart_runtime.request import Request
from kobart_runtime.runners import open_runner
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings


class System(Protocol):
    """One contestant."""

    name: str

    def generate(self, sources: np.ndarray, settings: GenerationSettings) -> list[list[int]]:
        """Generated ids of each source.

        Args:
            sources: int32[R, S], without padding.
            settings: The same for all of them.
        """


class TorchGenerate:
    """`transformers` `generate()` in fp32, one call for the batch."""

    name = "PyTorch generate fp32"

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu") -> None:
        self._model: Any = checkpoint.model.to(device)  # type: ignore[arg-type]
        self._device = device
        self._ids = checkpoint.ids

    def generate(self, sources: np.ndarray, settings: GenerationSettings) -> list[list[int]]:
        """See `System`."""
        input_ids = torch.from_numpy(sources).long().to(self._device)
        beam_settings = {
            "early_stopping": settings.early_stopping,
            "length_penalty": settings.length_penalty,
        }
        with torch.inference_mode():
            output = self._model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=False,
                num_beams=settings.num_beams,
                max_new_tokens=settings.max_new_tokens,
                min_new_tokens=settings.min_new_tokens,
                no_repeat_ngram_size=settings.no_repeat_ngram_size,
                repetition_penalty=settings.repetition_penalty,
                decoder_start_token_id=self._ids.decoder_start,
                forced_eos_token_id=self._ids.forced_eos,
                eos_token_id=list(self._ids.eos),
                pad_token_id=self._ids.pad,
                **(beam_settings if settings.num_beams > 1 else {}),
            )
        return [row[1:] for row in output.tolist()]


class OurRuntime:
    """The generation loop of a build, in this process; all requests are submitted at once."""

    def __init__(self, build: Path, name: str | None = None) -> None:
        config = ModelConfig.from_manifest(build / MANIFEST_NAME)
        folder = build / config.name / "1"
        self.name = name or f"kobart-triton {config.precision}"
        runner = open_runner(folder, config.runtime, config.shape)
        self._loop = GenerationLoop(runner, config, Metrics())

    def generate(self, sources: np.ndarray, settings: GenerationSettings) -> list[list[int]]:
        """See `System`."""
        answers = self.generate_each([(source, settings) for source in sources])
        return [list(ids) for ids in answers]

    def generate_each(
        self, calls: Sequence[tuple[np.ndarray, GenerationSettings]]
    ) -> list[tuple[int, ...]]:
        """Generated ids in the order of the calls, which are all in flight together.

        Args:
            calls: Source ids int32[S], and how to summarise them.
        """
        listeners = [_Result() for _ in calls]
        for (source, settings), listener in zip(calls, listeners, strict=True):
            self._loop.submit(Request(source, settings, listener))
        return [listener.wait().ids for listener in listeners]

    def close(self) -> None:
        """Stop the loop's thread."""
        self._loop.close()


class _Result:
    """A listener that waits for the end."""

    def __init__(self) -> None:
        self._outcome: queue.SimpleQueue[Generated | KobartError] = queue.SimpleQueue()

    def on_tokens(self, ids: Sequence[int]) -> None:
        pass

    def on_finished(self, generated: Generated) -> None:
        self._outcome.put(generated)

    def on_failed(self, error: KobartError) -> None:
        self._outcome.put(error)

    def wait(self) -> Generated:
        outcome = self._outcome.get()
        if isinstance(outcome, KobartError):
            raise outcome
        return outcome
