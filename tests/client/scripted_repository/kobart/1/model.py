"""A front model without a checkpoint: the first word of the text says what to do.

echo WORDS          the words are the summary; each is one token, its id the word's length
long WORDS          as echo, and the text was truncated
late WORDS          as echo, but an empty final response follows the last one
sleep SECONDS WORDS as echo, later
fail CODE MESSAGE   an error, with the prefix that the contract asks for
raw MESSAGE         an error without a prefix
overload N KEY      UNAVAILABLE the first N times that KEY is seen, then KEY
meet KEY N SCRIPT   the script, once N requests with this KEY have arrived
hang                one word if streaming, then nothing until the request is cancelled
empty               the final flag and no response at all
settings            the settings received, as JSON
stats               counts of requests seen, hanging and cancelled, as JSON
anything else       the text itself is the summary
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

OPTIONAL_INPUTS = (
    "stream",
    "num_beams",
    "max_new_tokens",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "length_penalty",
    "repetition_penalty",
    "early_stopping",
)
# Triton's own names; the backend fills pb_utils only after this module was imported.
CODES = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "UNAVAILABLE": "UNAVAILABLE",
    "CANCELLED": "CANCELLED",
    "DEADLINE_EXCEEDED": "CANCELLED",
    "INTERNAL": "INTERNAL",
}
FINAL = 1  # TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """Answers each request on a thread of its own, so that one may hang."""

    def initialize(self, args: dict[str, str]) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            script = Script(request, self._count)
            threading.Thread(target=script.run, daemon=True).start()

    def _count(self, key: str | None = None) -> dict[str, int]:
        """All counts, with one more of `key`."""
        with self._lock:
            if key is not None:
                self._counts[key] += 1
            return dict(self._counts)


class Script:
    """One request and the means to answer it."""

    def __init__(self, request: Any, count: Any) -> None:
        self._sender = request.get_response_sender()
        self._count = count
        self._script = (
            pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode()
        )
        self._settings = {
            name: tensor.as_numpy().item()
            for name in OPTIONAL_INPUTS
            if (tensor := pb_utils.get_input_tensor_by_name(request, name)) is not None
        }
        self._stream = bool(self._settings.get("stream", False))
        self._timeout_us = request.timeout()

    def run(self) -> None:
        self._count("requests")
        self._do(self._script)

    def _do(self, script: str) -> None:
        self._verb, _, self._rest = script.partition(" ")
        getattr(self, f"_do_{self._verb}", self._do_repeat)()

    def _do_echo(self) -> None:
        self._answer(self._rest, final_flag=FINAL)

    def _do_repeat(self) -> None:
        self._answer(f"{self._verb} {self._rest}", final_flag=FINAL)

    def _do_long(self) -> None:
        self._answer(self._rest, final_flag=FINAL, truncated=True)

    def _do_late(self) -> None:
        self._answer(self._rest, final_flag=0)
        self._sender.send(flags=FINAL)

    def _do_sleep(self) -> None:
        seconds, _, self._rest = self._rest.partition(" ")
        time.sleep(float(seconds))
        self._do_echo()

    def _do_fail(self) -> None:
        self._refuse(CODES[self._rest.partition(" ")[0]], self._rest.replace(" ", ": ", 1))

    def _do_raw(self) -> None:
        self._refuse("INTERNAL", self._rest)

    def _do_overload(self) -> None:
        limit, _, self._rest = self._rest.partition(" ")
        if self._count(self._rest)[self._rest] <= int(limit):
            self._refuse("UNAVAILABLE", "UNAVAILABLE: 256 requests wait")
        else:
            self._do_echo()

    def _do_meet(self) -> None:
        key, number, script = self._rest.split(" ", 2)
        self._count(key)
        while self._count()[key] < int(number):
            time.sleep(0.01)
        self._do(script)

    def _do_hang(self) -> None:
        self._count("hanging")
        if self._stream:
            self._sender.send(response("first", "", [5]))
        while not self._sender.is_cancelled():
            time.sleep(0.01)
        self._count("cancelled")
        # tritonserver 2.51 crashes now and then if this meets its own work on the cancellation.
        time.sleep(0.05)
        self._refuse("CANCELLED", "CANCELLED: the caller went away")

    def _do_empty(self) -> None:
        self._sender.send(flags=FINAL)

    def _do_settings(self) -> None:
        self._answer(json.dumps({**self._settings, "timeout_us": self._timeout_us}), FINAL)

    def _do_stats(self) -> None:
        self._answer(json.dumps(self._count()), FINAL)

    def _answer(self, text: str, final_flag: int, truncated: bool = False) -> None:
        pieces = text.split(" ") if self._stream else [text]
        ids = [len(word) for word in text.split(" ")]
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            self._sender.send(
                response(
                    piece if index == 0 else f" {piece}",
                    "stop" if last else "",
                    ids[index : index + 1] if self._stream else ids,
                    num_output_tokens=index + 1 if self._stream else len(ids),
                    truncated=truncated,
                ),
                flags=final_flag if last else 0,
            )

    def _refuse(self, code: str, message: str) -> None:
        error = pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
        self._sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)


def response(
    text: str,
    finish_reason: str,
    output_ids: list[int],
    num_output_tokens: int = 1,
    truncated: bool = False,
) -> Any:
    """The six outputs of the contract; the source is always one hundred tokens long."""
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("text_output", np.array([text.encode()], dtype=object)),
            pb_utils.Tensor("finish_reason", np.array([finish_reason.encode()], dtype=object)),
            pb_utils.Tensor("num_input_tokens", np.array([100], np.int32)),
            pb_utils.Tensor("num_output_tokens", np.array([num_output_tokens], np.int32)),
            pb_utils.Tensor("truncated", np.array([truncated])),
            pb_utils.Tensor("output_ids", np.array(output_ids, np.int32)),
        ]
    )
