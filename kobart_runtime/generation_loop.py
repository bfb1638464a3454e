"""The loop around the forward pass: admit, decode a step, retire, over and over.

One thread owns the model. Requests join and leave the running batch between any two steps
(continuous batching); each beam width has a batch of its own, and all of them take turns.
"""

from __future__ import annotations

import logging
import threading
import time

from kobart_runtime.beam_search import BeamSearch
from kobart_runtime.decode_batch import DecodeBatch, Sequence
from kobart_runtime.errors import EngineError, KobartError, OverloadedError
from kobart_runtime.greedy_search import GreedySearch
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.request import Request
from kobart_runtime.scheduler import WaitingQueue, pad_sources
from kobart_runtime.search import Search

_logger = logging.getLogger(__name__)


class GenerationLoop:
    """Runs requests until `close`. `submit` may be called from any thread."""

    def __init__(self, runner: ModelRunner, config: ModelConfig, metrics: Metrics) -> None:
        self._runner = runner
        self._config = config
        self._metrics = metrics
        self._changed = threading.Condition()  # guards _waiting and _closing
        self._waiting = WaitingQueue(config.limits.max_queue_size)
        self._closing = False
        self._batches: dict[int, DecodeBatch] = {}  # beam width -> batch
        metrics.set(slots=config.limits.max_batch_size)
        self._thread = threading.Thread(target=self._run, name="generation-loop", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    @property
    def num_active(self) -> int:
        """Requests in slots."""
        return sum(len(batch.sequences) for batch in self._batches.values())

    def check_room(self) -> None:
        """Refuse early what `submit` would refuse.

        Raises:
            OverloadedError: The queue is full.
        """
        with self._changed:
            self._waiting.check_room()

    def submit(self, request: Request) -> None:
        """Queue a request; its listener is told the rest.

        Raises:
            OverloadedError: The queue is full, or the loop is being closed.
        """
        with self._changed:
            if self._closing:
                raise OverloadedError("the model is being unloaded: try again in a while")
            self._waiting.check_room()
            self._waiting.append(request)
            self._changed.notify()

    def close(self) -> None:
        """Finish what was submitted, then stop the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._drop_aborted()
                self._admit()
                for batch in list(self._batches.values()):
                    self._step(batch)
            except Exception as error:
                # A defect of ours. Without this the thread would end and every caller would hang.
                failed = [s.request for b in self._batches.values() for s in b.sequences]
                self._batches = {}
                self._fail(failed, error)
            self._report_load()

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self.num_active or self._waiting or self._closing):
                self._changed.wait()
            return bool(self.num_active or self._waiting)

    def _drop_aborted(self) -> None:
        with self._changed:
            dropped = self._waiting.remove_aborted()
        for batch in list(self._batches.values()):
            for sequence in [s for s in batch.sequences if s.request.abort is not None]:
                self._retire(batch, sequence)
                dropped.append(sequence.request)
        for request in dropped:
            assert request.abort is not None
            request.listener.on_failed(request.abort)

    def _admit(self) -> None:
        """Encode some waiting requests and give them slots."""
        num_free = self._config.limits.max_batch_size - self.num_active
        with self._changed:
            requests = self._waiting.take(num_free, idle=self.num_active == 0)
        if not requests:
            return
        started = time.monotonic()
        try:
            self._encode(requests)
        except Exception as error:
            self._fail([r for r in requests if not self._has_slot(r)], error)
        self._metrics.add(encode_seconds=time.monotonic() - started)

    def _encode(self, requests: list[Request]) -> None:
        encoded = self._runner.encode(*pad_sources(requests, self._config.ids.pad))
        admitted: dict[int, dict[int, Sequence]] = {}  # beam width -> row of `encoded` -> sequence
        for row, request in enumerate(requests):
            sequence = Sequence(request, self._new_search(request))
            admitted.setdefault(request.settings.num_beams, {})[row] = sequence
        for num_beams, sequences in admitted.items():
            if num_beams not in self._batches:
                self._batches[num_beams] = DecodeBatch(self._runner, num_beams)
            self._batches[num_beams].admit(sequences, encoded)
        self._metrics.add(input_tokens=sum(request.source_len for request in requests))

    def _new_search(self, request: Request) -> Search:
        kind = GreedySearch if request.settings.num_beams == 1 else BeamSearch
        return kind(request.settings, self._config.ids)

    def _step(self, batch: DecodeBatch) -> None:
        started = time.monotonic()
        num_requests = len(batch.sequences)
        if not num_requests:
            return
        try:
            batch.step()
        except Exception as error:
            failed = [sequence.request for sequence in batch.sequences]
            # The cache may be half written: a new batch starts from zeros.
            self._batches = {w: b for w, b in self._batches.items() if b is not batch}
            self._fail(failed, error)
            return
        num_beams = batch.sequences[0].search.num_beams
        for sequence in list(batch.sequences):
            self._report(batch, sequence)
        self._metrics.set(decode_batch_size=num_requests)
        self._metrics.add(
            decode_seconds=time.monotonic() - started,
            decode_steps=1,
            decode_step_requests=num_requests,
            decode_step_rows=num_requests * num_beams,
        )

    def _report(self, batch: DecodeBatch, sequence: Sequence) -> None:
        request, search = sequence.request, sequence.search
        if search.num_generated == 1:
            waited = time.monotonic() - request.arrived_s
            self._metrics.add(first_tokens=1, first_token_seconds=waited)
        if search.generated is not None:
            self._retire(batch, sequence)
            self._metrics.add(output_tokens=len(search.generated.ids))
            request.listener.on_finished(search.generated)
        elif request.stream:
            new = search.committed()[request.num_reported :]
            if new:
                request.num_reported += len(new)
                request.listener.on_tokens(new)

    def _retire(self, batch: DecodeBatch, sequence: Sequence) -> None:
        batch.retire(sequence)
        if not batch.sequences:
            self._batches.pop(sequence.search.num_beams)

    def _has_slot(self, request: Request) -> bool:
        return any(
            sequence.request is request
            for batch in self._batches.values()
            for sequence in batch.sequences
        )

    def _fail(self, requests: list[Request], error: Exception) -> None:
        """Fail these requests alone: the loop and their neighbours go on."""
        _logger.error("%d requests failed: %s", len(requests), error, exc_info=error)
        told = error if isinstance(error, KobartError) else EngineError(f"{error!r}")
        for request in requests:
            request.listener.on_failed(told)

    def _report_load(self) -> None:
        self._metrics.set(requests_active=self.num_active, requests_waiting=self.num_waiting)
