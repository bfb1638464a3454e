"""Where the time of summaries goes: tokenizer, engines, search, detokenizer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.our_runtime import OurRuntime, open_tokenizer
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.settings import GenerationSettings

PHASES = ("tokenize", "encode", "decode step", "search and caches", "detokenize")


@dataclass
class Stopwatch:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add what the block takes."""
        started = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + taken


class TimedRunner:
    """A model runner whose calls are timed; everything else is passed on."""

    def __init__(self, runner: Any, stopwatch: Stopwatch) -> None:
        self._runner = runner
        self._stopwatch = stopwatch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def encode(self, *args: Any) -> Any:
        """See `kobart_runtime.model_runner.ModelRunner`."""
        with self._stopwatch.phase("encode"):
            return self._runner.encode(*args)

    def decode_step(self, *args: Any, **flags: Any) -> Any:
        """See `kobart_runtime.model_runner.ModelRunner`."""
        with self._stopwatch.phase("decode step"):
            return self._runner.decode_step(*args, **flags)


class PhaseTimer:
    """Summarizes the same documents again and again, by phase."""

    def __init__(
        self,
        build: Path,
        config: ModelConfig,
        settings: GenerationSettings,
        documents: Sequence[str],
    ) -> None:
        self._stopwatch = Stopwatch()
        self._tokenizer = open_tokenizer(build, config)
        self._runtime = OurRuntime(build, wrap=lambda each: TimedRunner(each, self._stopwatch))
        self._settings = settings
        self._documents = documents

    def run(self) -> dict[str, float]:
        """Milliseconds a document, by phase."""
        self._stopwatch.seconds.clear()
        watch = self._stopwatch
        with watch.phase("tokenize"):
            sources = [self._tokenizer.encode(text).input_ids for text in self._documents]
        with watch.phase("generate"):
            answers = self._runtime.generate(sources, self._settings)
        with watch.phase("detokenize"):
            for ids in answers:
                self._tokenizer.decode(ids)
        seconds = dict(watch.seconds)
        engines = seconds["encode"] + seconds["decode step"]
        # What the loop does between the engines' calls: rules, beams, masks, admission.
        seconds["search and caches"] = seconds.pop("generate") - engines
        return {name: 1000 * seconds[name] / len(self._documents) for name in PHASES}

    def close(self) -> None:
        """Stop the runtime's thread."""
        self._runtime.close()
