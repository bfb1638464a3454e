"""Stand-ins for the engines and for callers, exact and under a test's control."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from kobart_runtime.conversation import Answer
from kobart_runtime.errors import KobartError
from kobart_runtime.model_config import ModelConfig, ModelShape, TokenIds, TokenizerConfig
from kobart_runtime.model_runner import StepInputs, StepOutput
from kobart_runtime.search import Generated
from kobart_runtime.settings import GenerationSettings, Limits
from tests.patience import PATIENCE_S
from tests.reference import NextLogits, log_softmax

ENTRY_BYTES = 1024  # K/V of one entry of a scripted cache

Source = tuple[int, ...]


class ScriptedModel:
    """Logits out of a hash of source and prefix: equal inputs, equal bits, whatever the batch."""

    def __init__(self, vocab_size: int, seed: int = 0) -> None:
        self.vocab_size = vocab_size
        self._seed = seed
        self._known: dict[tuple[Source, tuple[int, ...]], np.ndarray] = {}

    def next_logits(self, source: Source, prefix: tuple[int, ...]) -> np.ndarray:
        """float32[V]; each source prefers some tokens, so that repetition happens."""
        key = (source, prefix)
        if key not in self._known:
            self._known[key] = 2 * self._noise(source) + 2 * self._noise(source, prefix)
        return self._known[key]

    def of(self, source: Sequence[int]) -> NextLogits:
        """The function that the reference takes."""
        return lambda prefix: self.next_logits(tuple(source), prefix)

    def _noise(self, *parts: tuple[int, ...]) -> np.ndarray:
        text = repr((self._seed, parts)).encode()
        key = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        generator = np.random.Generator(np.random.Philox(key=key))
        return generator.standard_normal(self.vocab_size, dtype=np.float32)


class Entry(NamedTuple):
    """What a cache entry stands for, in place of its keys and values."""

    source: Source
    token: int
    position: int


class ScriptedCache:
    """A `model_runner.KvCache` that checks what it is asked."""

    def __init__(self, num_slots: int, num_entries: int, source_len: int) -> None:
        self.num_slots, self.num_entries, self.source_len = num_slots, num_entries, source_len
        self.entry_bytes = self.source_bytes = ENTRY_BYTES
        self.entries: list[list[Entry | None]] = [[None] * num_entries for _ in range(num_slots)]
        self.sources: list[Source] = [()] * num_slots

    def resize(self, num_used: int, num_slots: int, num_entries: int, source_len: int) -> None:
        assert num_used <= min(num_slots, self.num_slots)
        resized = ScriptedCache(num_slots, num_entries, source_len)
        for slot in range(num_used):
            kept = self.entries[slot][:num_entries]
            resized.entries[slot][: len(kept)] = kept
            resized.sources[slot] = self.sources[slot][:source_len]
        self.__dict__ = resized.__dict__

    def put(self, slot: int, encoded: list[Source], row: int, source_len: int) -> None:
        assert len(encoded[row]) == source_len <= self.source_len
        self.sources[slot] = encoded[row]

    def move(self, source: int, target: int) -> None:
        assert max(source, target) < self.num_slots
        self.entries[target] = list(self.entries[source])
        self.sources[target] = self.sources[source]


class ScriptedRunner:
    """A `model_runner.ModelRunner` over a `ScriptedModel`.

    It works each beam's prefix out of the cache entries that the beam may see, so a wrong mask, a
    slot not moved or an entry overwritten too early is an AssertionError or another summary.
    """

    def __init__(self, model: ScriptedModel, num_candidates: int = 16) -> None:
        self.model = model
        self.vocab_size = model.vocab_size
        self.num_candidates = min(num_candidates, model.vocab_size)
        # Called on the loop's thread before the work: they may raise or block.
        self.before_encode: Callable[[np.ndarray], None] = lambda input_ids: None
        self.before_step: Callable[[StepInputs], None] = lambda inputs: None
        self.before_give_back: Callable[[], None] = lambda: None
        self.num_gave_back = 0
        self.encoded_batches: list[tuple[int, ...]] = []  # source lengths of each encode
        self.num_steps = 0
        self.num_logits_steps = 0  # steps whose logits were asked for
        self.step_sizes: list[tuple[int, int]] = []  # R, W of each step
        self.max_entries = 0
        self.caches: list[ScriptedCache] = []

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[Source]:
        self.before_encode(input_ids)
        assert input_ids.dtype == attention_mask.dtype == np.int32
        assert input_ids.shape == attention_mask.shape
        lengths = attention_mask.sum(axis=1)
        columns = np.arange(input_ids.shape[1])
        assert (attention_mask == (columns < lengths[:, None])).all(), "not padded on the right"
        self.encoded_batches.append(tuple(lengths.tolist()))
        return [tuple(r[:n].tolist()) for r, n in zip(input_ids, lengths, strict=True)]

    def new_cache(self, num_slots: int, num_entries: int, source_len: int) -> ScriptedCache:
        self.caches.append(ScriptedCache(num_slots, num_entries, source_len))
        return self.caches[-1]

    def free_bytes(self) -> int:
        return 1 << 30

    def give_back_freed(self) -> None:
        self.num_gave_back += 1
        self.before_give_back()

    def decode_step(
        self, cache: ScriptedCache, inputs: StepInputs, *, want_logits: bool
    ) -> StepOutput:
        self.before_step(inputs)
        _check(cache, inputs)
        num_requests, num_beams = inputs.decoder_input_ids.shape
        self.num_steps += 1
        self.num_logits_steps += want_logits
        self.step_sizes.append((num_requests, num_beams))
        self.max_entries = max(self.max_entries, cache.num_entries)
        logits = np.empty((num_requests, num_beams, self.vocab_size), np.float32)
        for slot, beam in np.ndindex(num_requests, num_beams):
            prefix = _prefix(cache, inputs, slot, beam)
            logits[slot, beam] = self.model.next_logits(cache.sources[slot], prefix)
        for slot, beam in np.ndindex(num_requests, num_beams):
            cache.entries[slot][inputs.new_entries[slot, beam]] = Entry(
                cache.sources[slot],
                int(inputs.decoder_input_ids[slot, beam]),
                int(inputs.position_ids[slot, 0]),
            )
        logprobs = np.apply_along_axis(log_softmax, 2, logits)
        best = np.argsort(-logits, axis=2, kind="stable")[:, :, : self.num_candidates]
        return StepOutput(
            np.take_along_axis(logprobs, best, axis=2),
            best.astype(np.int32),
            logits if want_logits else None,
        )


def _check(cache: ScriptedCache, inputs: StepInputs) -> None:
    """What `model_runner.StepInputs` promises."""
    num_requests, num_beams = inputs.decoder_input_ids.shape
    mask, new_entries = inputs.decoder_attention_mask, inputs.new_entries
    assert 1 <= num_requests <= cache.num_slots
    assert inputs.decoder_input_ids.dtype == inputs.position_ids.dtype == mask.dtype == np.int32
    assert new_entries.dtype == np.int64
    assert inputs.position_ids.shape == (num_requests, 1)
    assert mask.shape == (num_requests, num_beams, cache.num_entries)
    assert mask.flags.c_contiguous
    assert new_entries.shape == (num_requests, num_beams)
    for slot in range(num_requests):
        new = new_entries[slot].tolist()
        assert len(set(new)) == num_beams, "new entries are not distinct"
        assert not mask[slot, :, new].any(), "a new entry overwrites one that a beam sees"


def _prefix(cache: ScriptedCache, inputs: StepInputs, slot: int, beam: int) -> tuple[int, ...]:
    """Tokens of a beam from the decoder start to the one that is fed now."""
    visible = np.flatnonzero(inputs.decoder_attention_mask[slot, beam])
    seen = [cache.entries[slot][entry] for entry in visible]
    past = sorted((entry for entry in seen if entry), key=lambda entry: entry.position)
    assert len(past) == len(seen), "a beam sees an entry that was never written"
    position = int(inputs.position_ids[slot, 0])
    assert [entry.position for entry in past] == list(range(position)), "not one entry a position"
    assert {entry.source for entry in past} <= {cache.sources[slot]}, "another request's entry"
    return (*(entry.token for entry in past), int(inputs.decoder_input_ids[slot, beam]))


class RecordingListener:
    """A `request.Listener` that a test can wait for; it insists on exactly one end."""

    def __init__(self) -> None:
        self.pieces: list[list[int]] = []
        self.generated: Generated | None = None
        self.error: KobartError | None = None
        self.num_ends = 0
        self._ended = threading.Event()

    @property
    def streamed(self) -> list[int]:
        return [token for piece in self.pieces for token in piece]

    def on_tokens(self, ids: Sequence[int]) -> None:
        assert not self.num_ends
        self.pieces.append(list(ids))

    def on_finished(self, generated: Generated) -> None:
        self.generated = generated
        self._end()

    def on_failed(self, error: KobartError) -> None:
        self.error = error
        self._end()

    def wait(self) -> None:
        assert self._ended.wait(PATIENCE_S), "the request was not answered"

    def result(self) -> Generated:
        self.wait()
        if self.error is not None:
            raise self.error
        assert self.generated is not None
        return self.generated

    def _end(self) -> None:
        self.num_ends += 1
        self._ended.set()


class RecordingSink:
    """A `conversation.Sink` that a test can wait for, cancel and break."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.error: KobartError | None = None
        self.cancelled = False
        self.broken: Exception | None = None  # raised by every send
        self.num_ends = 0
        self._ended = threading.Event()

    @cached_property
    def text(self) -> str:
        return "".join(answer.text for answer in self.wait())

    def send(self, answer: Answer, *, final: bool) -> None:
        assert not self.num_ends, "an answer after the last"
        if self.broken is not None:
            raise self.broken
        self.answers.append(answer)
        if final:
            self._end()

    def fail(self, error: KobartError) -> None:
        self.error = error
        self._end()

    def is_cancelled(self) -> bool:
        return self.cancelled

    def wait(self) -> list[Answer]:
        """All answers, once the last has come."""
        assert self._ended.wait(PATIENCE_S), "the request was not answered"
        if self.error is not None:
            raise self.error
        return self.answers

    def _end(self) -> None:
        self.num_ends += 1
        self._ended.set()


def scripted_config(
    runner: ScriptedRunner,
    ids: TokenIds,
    defaults: GenerationSettings | None = None,
    **limits: Any,
) -> ModelConfig:
    """A build around a scripted runner."""
    return ModelConfig(
        name="scripted",
        runtime="onnxruntime",
        encoder_engine="onnxruntime",
        precision="fp32",
        ids=ids,
        shape=ModelShape(
            num_decoder_layers=1,
            num_heads=1,
            head_dim=1,
            vocab_size=runner.vocab_size,
            num_candidates=runner.num_candidates,
        ),
        tokenizer=TokenizerConfig(),
        limits=Limits(**limits),
        defaults=defaults or GenerationSettings(),
        artefacts={},
    )
