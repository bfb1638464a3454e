"""The loop around the forward pass: admit, decode a step, retire, over and over.

One thread owns the model. Requests join and leave the running batch between any two steps
(continuous batching); each beam width has a batch of its own, and all of them take turns, newcomers
first: a short request's first token does not wait for a step of the others.

What fails in company is decoded again from the encoder on, each request in a batch of its own, so
that one request cannot fail its neighbours. A summary is the same however often it is computed.
"""

from __future__ import annotations

import logging
import threading
import time

from kobart_runtime.admission import MEBIBYTE, CacheBudget
from kobart_runtime.beam_search import BeamSearch
from kobart_runtime.decode_batch import DecodeBatch, Sequence
from kobart_runtime.decode_batches import DecodeBatches
from kobart_runtime.errors import EngineError, KobartError, OverloadedError
from kobart_runtime.greedy_search import GreedySearch
from kobart_runtime.metrics import Metrics
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.model_runner import ModelRunner
from kobart_runtime.request import Request
from kobart_runtime.scheduler import WaitingQueue, pad_sources
from kobart_runtime.search import Generated, Search

_IDLE_S = 1.0  # without work for so long, the loop gives back memory that it has freed
_logger = logging.getLogger(__name__)


class GenerationLoop:
    """Runs requests until `close`. `submit` may be called from any thread."""

    def __init__(
        self, runner: ModelRunner, config: ModelConfig, metrics: Metrics, num_sharing: int = 1
    ) -> None:
        """Start the thread.

        Args:
            runner: The forward pass.
            config: The build's.
            metrics: What the loop reports to.
            num_sharing: Models that share the free memory, this one among them.
        """
        self._runner = runner
        self._config = config
        self._metrics = metrics
        self._changed = threading.Condition()  # guards _unanswered, _waiting and _closing
        # By number: all that were submitted and whose listeners have not been told of an end.
        self._unanswered: dict[int, Request] = {}
        self._waiting = WaitingQueue(config.limits.max_queue_size)
        self._closing = False
        self._batches = DecodeBatches(runner)
        self._budget = _cache_budget(runner, config.limits.max_cache_mib, num_sharing)
        metrics.set(slots=config.limits.max_batch_size, cache_limit_bytes=self._budget.max_bytes)
        self._thread = threading.Thread(target=self._run, name="generation-loop", daemon=True)
        self._thread.start()

    @property
    def max_cache_bytes(self) -> int:
        """Memory that keys and values may take."""
        return self._budget.max_bytes

    @property
    def num_waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    @property
    def num_active(self) -> int:
        """Requests in slots."""
        return self._batches.num_sequences

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
            InvalidArgumentError: Its K/V would not fit even if it were alone.
            OverloadedError: The queue is full, or the loop is being closed.
        """
        self._budget.check(request)
        with self._changed:
            if self._closing:
                raise OverloadedError("the model is being unloaded: try again in a while")
            self._waiting.check_room()
            self._changed.notify()
            self._unanswered[request.number] = request
            try:
                self._waiting.append(request)
            except BaseException:  # refused, so it must not be answered as well
                del self._unanswered[request.number]
                raise

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
                for batch in self._batches.newcomers_first():
                    self._step(batch)
                self._recover_lost(EngineError("the request was lost by a defect of the loop"))
            except Exception as error:
                # A defect of ours. Without this the thread would end and every caller would hang.
                self._start_again(error)
            self._report_load()

    def _wait_for_work(self) -> bool:
        """Sleep while there is none; False once the loop is closed and has finished."""
        with self._changed:
            woken = self._changed.wait_for(self._is_wanted, _IDLE_S)
        if not woken:
            self._give_back_freed()
        with self._changed:
            self._changed.wait_for(self._is_wanted)
            return bool(self._unanswered)

    def _give_back_freed(self) -> None:
        try:
            self._runner.give_back_freed()
        except Exception as error:  # no request is concerned
            _logger.warning("freed memory could not be given back: %r", error)

    def _is_wanted(self) -> bool:
        return bool(self._unanswered or self._closing)

    def _start_again(self, error: Exception) -> None:
        """Forget all batches; who was in them, or on the way to or from them, is tried again."""
        _logger.error("a defect of the loop: %r", error, exc_info=error)
        try:
            self._batches.drop_all()
            self._recover_lost(error)
        except Exception:  # the next turn finds them again
            _logger.exception("requests could not be recovered")

    def _recover_lost(self, error: Exception) -> None:
        lost = self._find_lost()
        self._recover(lost, error, num_together=len(lost))

    def _find_lost(self) -> list[Request]:
        """Requests that are neither answered, nor waiting, nor in a slot."""
        with self._changed:
            if len(self._unanswered) == self.num_waiting + self.num_active:
                return []
            held = {request.number for request in (*self._waiting, *self._batches.requests)}
            return [r for number, r in self._unanswered.items() if number not in held]

    def _drop_aborted(self) -> None:
        with self._changed:
            waiting = self._waiting.remove_aborted()
        for request in waiting:
            self._tell_abort(request)
        for batch in self._batches:
            for sequence in batch.sequences:
                self._tell_abort(sequence.request)
            self._free_answered(batch)

    def _admit(self) -> None:
        """Encode some waiting requests and give them slots."""
        num_free = self._config.limits.max_batch_size - self.num_active
        requests = self._take(num_free)
        if not requests:
            return
        started = time.monotonic()
        try:
            self._encode(requests)
        except Exception as error:
            admitted = self._batches.requests
            left = [r for r in requests if r not in admitted]
            self._recover(left, error, num_together=len(requests))
        self._metrics.add(encode_seconds=time.monotonic() - started)

    def _take(self, num_free: int) -> list[Request]:
        with self._changed:
            try:
                return self._waiting.take(num_free, idle=self.num_active == 0, fits=self._fits)
            except Exception as error:
                # All others are measured beside the oldest: without it they can go on.
                oldest, failure = self._waiting.take(1, idle=True, fits=lambda _: True), error
        self._fail(oldest, failure)
        return []

    def _encode(self, requests: list[Request]) -> None:
        encoded = self._runner.encode(*pad_sources(requests, self._config.ids.pad))
        sequences = [Sequence(request, self._new_search(request)) for request in requests]
        self._batches.admit(dict(enumerate(sequences)), encoded)

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
            # The cache may be half written: a new batch starts from zeros.
            self._recover(self._batches.drop(batch), error, num_together=num_requests)
            return
        num_beams = batch.sequences[0].search.num_beams
        for sequence in batch.sequences:
            self._report(sequence)
        self._free_answered(batch)
        self._metrics.set(decode_batch_size=num_requests)
        self._metrics.add(
            decode_seconds=time.monotonic() - started,
            decode_steps=1,
            decode_step_requests=num_requests,
            decode_step_rows=num_requests * num_beams,
        )

    def _report(self, sequence: Sequence) -> None:
        """Tell the listener what a step has brought; whatever fails then fails this request."""
        try:
            self._tell_progress(sequence.request, sequence.search)
        except Exception as error:
            self._fail([sequence.request], error)

    def _tell_progress(self, request: Request, search: Search) -> None:
        if not request.has_begun:
            request.has_begun = True
            waited = time.monotonic() - request.arrived_s
            self._metrics.add(
                first_tokens=1, first_token_seconds=waited, input_tokens=request.source_len
            )
        if search.generated is not None:
            self._finish(request, search.generated)
        elif request.stream:
            new = search.committed()[len(request.reported) :]
            if new:
                request.reported += new
                request.listener.on_tokens(new)

    def _finish(self, request: Request, generated: Generated) -> None:
        told = request.reported
        if list(generated.ids[: len(told)]) != told:
            # Two batches may round differently, and two tokens may be equally good.
            message = "decoded again after a failure, the summary was not the one sent so far"
            raise EngineError(message)
        request.listener.on_finished(generated)
        self._set_answered(request)
        self._metrics.add(output_tokens=len(generated.ids))

    def _free_answered(self, batch: DecodeBatch) -> None:
        """Free the slots of requests that have been answered."""
        num_requests = len(batch.sequences)
        try:
            for sequence in list(batch.sequences):
                if sequence.request.number not in self._unanswered:
                    self._batches.retire(batch, sequence)
        except Exception as error:
            self._recover(self._batches.drop(batch), error, num_together=num_requests)

    def _fits(self, joining: list[Request]) -> bool:
        """Whether the K/V of these requests fits beside that of the admitted ones."""
        return self._budget.allows(self._batches.rooms(joining))

    def _recover(self, requests: list[Request], error: Exception, *, num_together: int) -> None:
        """Decode again, each alone, what failed in company; fail what had none.

        Args:
            requests: Those without a slot now; who has been answered is left in peace.
            error: What failed.
            num_together: How many requests it failed on, these among them.
        """
        unanswered = [r for r in requests if r.number in self._unanswered]
        again = [r for r in unanswered if not r.alone] if num_together > 1 else []
        if again:
            _logger.error(
                "%d requests failed together and are decoded again, each alone: %s",
                len(again),
                error,
                exc_info=error,
            )
            self._metrics.add(requests_retried=len(again))
            with self._changed:
                self._waiting.put_back(again)
        self._fail([r for r in unanswered if r not in again], error)

    def _fail(self, requests: list[Request], error: Exception) -> None:
        """Fail these requests alone: the loop and their neighbours go on."""
        if not requests:
            return
        _logger.error("%d requests failed: %s", len(requests), error, exc_info=error)
        told = error if isinstance(error, KobartError) else EngineError(f"{error!r}")
        for request in requests:
            self._tell_failure(request, told)

    def _tell_abort(self, request: Request) -> None:
        """Fail a request if somebody has said so."""
        if request.abort is not None:
            self._tell_failure(request, request.abort)

    def _tell_failure(self, request: Request, error: KobartError) -> None:
        self._set_answered(request)  # first: a listener that raises is not told again
        try:
            request.listener.on_failed(error)
        except Exception:
            _logger.exception("request %d could not be told that it failed", request.number)

    def _set_answered(self, request: Request) -> None:
        with self._changed:
            self._unanswered.pop(request.number, None)

    def _report_load(self) -> None:
        try:
            self._metrics.set(
                requests_active=self.num_active,
                requests_waiting=self.num_waiting,
                cache_bytes=self._budget.bytes_of(self._batches.rooms([])),
            )
        except Exception:  # no request is concerned
            _logger.exception("the load could not be reported")


def _cache_budget(runner: ModelRunner, max_cache_mib: int | None, num_sharing: int) -> CacheBudget:
    """The build's limit, or a share of half of what is free: caches are copied when they grow."""
    empty = runner.new_cache(0, 0, 0)
    if max_cache_mib is None:
        max_bytes = runner.free_bytes() // (2 * num_sharing)
    else:
        max_bytes = max_cache_mib * MEBIBYTE
    return CacheBudget(empty.entry_bytes, empty.source_bytes, max_bytes)
