"""A stand-in for the front model: answers `<wait> <text>` with `<text>`.

`<wait>` is a number of seconds, or the path of a file that must be there first.

Many requests at once, decoupled, and counted on /metrics, as the front model does it.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        if "load_error" in parameters:
            raise pb_utils.TritonModelException(parameters["load_error"]["string_value"])
        if "load_seconds" in parameters:
            time.sleep(float(parameters["load_seconds"]["string_value"]))
        self._received = _Counter("kobart_requests_received", args["model_name"])
        self._finished = _Counter("kobart_requests_finished", args["model_name"])
        self._workers: list[threading.Thread] = []

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._received.add_one()
            text = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode()
            worker = threading.Thread(
                target=self._answer, args=(text, request.get_response_sender())
            )
            worker.start()
            self._workers.append(worker)

    def finalize(self) -> None:
        for worker in self._workers:
            worker.join()

    def _answer(self, text: str, sender: Any) -> None:
        wait, _, answer = text.partition(" ")
        if wait.startswith("/"):
            while not Path(wait).exists():
                time.sleep(0.01)
        else:
            time.sleep(float(wait))
        output = pb_utils.Tensor("text_output", np.array([answer.encode()], dtype=np.object_))
        sender.send(
            pb_utils.InferenceResponse([output]),
            flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
        )
        self._finished.add_one()


class _Counter:
    # Metrics of one process changed by two threads at once crash the server (2.51).
    _lock = threading.Lock()

    def __init__(self, name: str, model: str) -> None:
        # A metric does not outlive its family.
        self._family = pb_utils.MetricFamily(
            name=name, description="for the drain", kind=pb_utils.MetricFamily.COUNTER
        )
        self._metric = self._family.Metric(labels={"model": model})

    def add_one(self) -> None:
        with self._lock:
            self._metric.increment(1)
