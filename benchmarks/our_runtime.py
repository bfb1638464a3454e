"""This project's runtime, in this process and without Triton; PyTorch is not imported here."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from client.evaluation.outcome import Answer
from kobart_runtime.errors import KobartError
from kobart_runtime.generation_loop import GenerationLoop
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import MANIFEST_NAME, TOKENIZER_FILE, ModelConfig
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.request import Request
from kobart_runtime.runners import open_runner
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings
from kobart_runtime.tokenizer import Tokenizer


class OurRuntime:
    """The generation loop of a build, in this process; all requests are submitted at once."""

    def __init__(
        self,
        build: Path,
        name: str | None = None,
        *,
        wrap: Callable[[ModelRunner], Any] = lambda runner: runner,
    ) -> None:
        """Open the engines of a build.

        Args:
            build: Its folder.
            name: In tables (default: this project's and the precision).
            wrap: Puts something around the model runner, to watch it.

        Raises:
            KobartError: It is no build, or its engines cannot be opened.
        """
        self.config = config = ModelConfig.from_manifest(build / MANIFEST_NAME)
        self._build = build
        self.folder = build / config.name / "1"  # of the engines
        self.name = name or f"kobart-triton {config.precision}"
        self.metrics = Metrics()
        self.runner = open_runner(self.folder, config.engines)
        self._loop = GenerationLoop(wrap(self.runner), config, self.metrics)

    def generate(
        self, sources: Sequence[np.ndarray], settings: GenerationSettings
    ) -> list[list[int]]:
        """See `benchmarks.decoding.System`."""
        answers = self.generate_each([(source, settings) for source in sources])
        return [list(ids) for ids in answers]

    def generate_each(
        self, calls: Sequence[tuple[np.ndarray, GenerationSettings]]
    ) -> list[tuple[int, ...]]:
        """Generated ids in the order of the calls, which are all in flight together.

        Args:
            calls: Source ids int32[S], and how to summarise them.
        """
        return [generated.ids for generated in self.finish_each(calls)]

    def finish_each(
        self, calls: Sequence[tuple[np.ndarray, GenerationSettings]]
    ) -> list[Generated]:
        """As `generate_each`, with the reason why each ended."""
        listeners = [_Result() for _ in calls]
        for (source, settings), listener in zip(calls, listeners, strict=True):
            self.submit(Request(source, settings, listener))
        return [listener.wait() for listener in listeners]

    def submit(self, request: Request) -> None:
        """Queue one request; its listener is told the rest, on the loop's thread."""
        self._loop.submit(request)

    def generate_texts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Generated ids with the build's own settings; all texts are in flight together."""
        sources = [self.tokenizer.encode(text).input_ids for text in texts]
        return self.generate_each([(source, self.config.defaults) for source in sources])

    def summarize(self, texts: Sequence[str]) -> list[str]:
        """Summaries as the build's service would give them, in order."""
        return [self.tokenizer.decode(ids) for ids in self.generate_texts(texts)]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The build's."""
        return open_tokenizer(self._build, self.config)

    def close(self) -> None:
        """Stop the loop's thread."""
        self._loop.close()


def open_tokenizer(build: Path, config: ModelConfig) -> Tokenizer:
    """The tokenizer of a build, as its front model opens it."""
    return Tokenizer(
        build / config.name / "1" / TOKENIZER_FILE,
        config.tokenizer,
        config.ids,
        max_source_length=config.limits.max_source_length,
        vocab_size=config.shape.vocab_size,
    )


class LocalAnswers:
    """Answers of a build in this process."""

    def __init__(self, build: Path, config: ModelConfig, settings: GenerationSettings) -> None:
        self.group_size = config.limits.max_batch_size
        self._tokenizer = open_tokenizer(build, config)
        self._settings = settings
        self._runtime = OurRuntime(build)

    def answers(self, texts: Sequence[str]) -> list[Answer]:
        """One answer a text.

        Raises:
            KobartError: A text cannot be summarized.
        """
        sources = [self._tokenizer.encode(text) for text in texts]
        finished = self._runtime.finish_each([(s.input_ids, self._settings) for s in sources])
        return [
            Answer(
                text=self._tokenizer.decode(generated.ids),
                output_ids=tuple(generated.ids),
                num_input_tokens=len(source.input_ids),
                finish_reason=generated.finish_reason,
                truncated=source.truncated,
            )
            for source, generated in zip(sources, finished, strict=True)
        ]

    def close(self) -> None:
        """Stop the runtime's thread."""
        self._runtime.close()


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
