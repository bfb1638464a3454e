"""Generate with open engines and a PyTorch model's ids, outside of a build."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from transformers import BartForConditionalGeneration

from kobart_runtime.errors import KobartError
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import ModelConfig, ModelShape, TokenIds, TokenizerConfig
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.request import Request
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings, Limits


class _Waiting:
    """A `request.Listener` that is waited for."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._generated: Generated | None = None
        self._error: KobartError | None = None

    def on_tokens(self, ids: Sequence[int]) -> None:
        """Nothing is streamed."""

    def on_finished(self, generated: Generated) -> None:
        """Keep the result."""
        self._generated = generated
        self._ended.set()

    def on_failed(self, error: KobartError) -> None:
        """Keep the reason."""
        self._error = error
        self._ended.set()

    def ids(self) -> list[int]:
        """Wait for the result."""
        self._ended.wait()
        if self._generated is None:
            raise self._error or KobartError("the generation ended without a result")
        return list(self._generated.ids)


def generate(
    runner: ModelRunner,
    model: BartForConditionalGeneration,
    input_ids: Sequence[Sequence[int]],
    settings: GenerationSettings,
    limits: Limits,
    shape: ModelShape,
) -> list[list[int]]:
    """Generated ids of each source, decoder start excluded.

    Raises:
        EngineError: An engine failed.
        InvalidArgumentError: The settings are outside the limits.
    """
    settings.check(limits)
    config = ModelConfig(
        name="in memory",
        runtime="",
        encoder_engine="",
        precision="",
        ids=token_ids(model),
        shape=shape,
        tokenizer=TokenizerConfig(),
        limits=limits,
        defaults=settings,
        artefacts={},
    )
    loop = GenerationLoop(runner, config, Metrics())
    listeners = [_Waiting() for _ in input_ids]
    for source, listener in zip(input_ids, listeners, strict=True):
        loop.submit(Request(np.array(source, np.int32), settings, listener))
    loop.close()  # returns when all are answered
    return [listener.ids() for listener in listeners]


def token_ids(model: BartForConditionalGeneration) -> TokenIds:
    """The ids that `model.generate()` would use."""
    given = model.generation_config
    eos, start = given.eos_token_id, given.decoder_start_token_id
    return TokenIds(
        bos=given.bos_token_id,
        eos=tuple(eos) if isinstance(eos, list) else (() if eos is None else (eos,)),
        pad=given.pad_token_id or 0,
        decoder_start=given.bos_token_id if start is None else start,
        forced_bos=given.forced_bos_token_id,
        forced_eos=given.forced_eos_token_id,
    )
