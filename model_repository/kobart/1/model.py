"""The front model: Triton's tensors to calls of `kobart_runtime`, and answers to tensors.

Nothing is decided here. `execute` hands over and returns; responses leave through the response
senders when the generation loop has them.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Triton puts the server's working directory before this folder: without this line a server
# started inside a checkout would run the checkout's runtime, not the build's.
_FOLDER = Path(__file__).parent.absolute()  # links kept: this interpreter reads ASCII names alone
sys.path.insert(0, str(_FOLDER))

import kobart_runtime  # noqa: E402
from kobart_runtime import bindings  # noqa: E402
from kobart_runtime.errors import (  # noqa: E402
    DeadlineExceededError,
    InvalidArgumentError,
    KobartError,
    OverloadedError,
    RequestCancelledError,
)
from kobart_runtime.host_memory import use_one_heap  # noqa: E402
from kobart_runtime.metrics import METRICS, Metrics  # noqa: E402
from kobart_runtime.service import Answer, Call, SummarizationService  # noqa: E402
from kobart_runtime.serving_options import ServingOptions  # noqa: E402
from kobart_runtime.settings import SETTING_NAMES  # noqa: E402

# Names in pb_utils.TritonError, which is empty until this module has been imported. There is none
# for a missed deadline; the message's prefix tells it from a cancellation.
_CODES = {
    InvalidArgumentError: "INVALID_ARG",
    OverloadedError: "UNAVAILABLE",
    RequestCancelledError: "CANCELLED",
    DeadlineExceededError: "CANCELLED",
}

# Parameters that belong to Triton's protocols. Any other one is a misspelt input of /generate.
_PROTOCOL_PARAMETERS = {"id", "timeout", "priority", "triton_enable_empty_final_response"}

_INPUT_NAMES = (bindings.TEXT_INPUT, bindings.STREAM, *SETTING_NAMES)
_METRICS_INTERVAL_S = 0.5
_logger = logging.getLogger(__name__)


class TritonPythonModel:
    """One loaded build."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the build beside this file; any reason not to fails the load with its message."""
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        try:
            _check_environment()
            use_one_heap()
            options = ServingOptions.from_environment(os.environ)
            self._service = SummarizationService.open(_FOLDER, options)
        except KobartError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._reporter = _MetricsReporter(self._service.metrics, args["model_name"])

    def execute(self, requests: list[Any]) -> None:
        """Hand requests over; decoupled models return nothing here."""
        for request in requests:
            try:
                self._accept(request, _ResponseSink(request.get_response_sender()))
            except Exception:
                # Raised to Triton, it would cost the other requests of this call their answers.
                _logger.exception("a request could be neither accepted nor refused")

    def finalize(self) -> None:
        """Answer what was accepted, then stop."""
        self._service.close()
        self._reporter.close()

    def _accept(self, request: Any, sink: _ResponseSink) -> None:
        """Submit a request, or have it refused."""
        try:
            self._service.submit(self._read(request), sink)
        except KobartError as error:
            self._service.refuse(error, sink)
        except Exception as error:
            _logger.exception("a request failed before it was accepted")
            self._service.refuse(KobartError(f"{error!r}"), sink)

    def _read(self, request: Any) -> Call:
        try:
            return _read_call(request)
        except Exception as error:
            self._service.count_unread(error)
            raise


class _ResponseSink:
    """See `kobart_runtime.conversation.Sink`."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, answer: Answer, *, final: bool) -> None:
        tensors = [
            pb_utils.Tensor(bindings.TEXT_OUTPUT, _strings(answer.text)),
            pb_utils.Tensor(bindings.FINISH_REASON, _strings(answer.finish_reason)),
            pb_utils.Tensor(bindings.NUM_INPUT_TOKENS, _int32(answer.num_input_tokens)),
            pb_utils.Tensor(bindings.NUM_OUTPUT_TOKENS, _int32(answer.num_output_tokens)),
            pb_utils.Tensor(bindings.TRUNCATED, np.array([answer.truncated], np.bool_)),
            pb_utils.Tensor(bindings.OUTPUT_IDS, _int32(*answer.output_ids)),
        ]
        self._send(pb_utils.InferenceResponse(tensors), final=final)

    def fail(self, error: KobartError) -> None:
        try:
            self._send(pb_utils.InferenceResponse(error=_triton_error(error)), final=True)
        except Exception:
            # Without an end the caller would wait for ever, and so would an unload.
            self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            raise

    def is_cancelled(self) -> bool:
        return bool(self._sender.is_cancelled())

    def _send(self, response: Any, *, final: bool) -> None:
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        self._sender.send(response, flags=flags)


class _MetricsReporter:
    """Copies the runtime's metrics to Triton's /metrics twice a second."""

    def __init__(self, metrics: Metrics, model_name: str) -> None:
        self._metrics = metrics
        self._kinds = {spec.name: spec.kind for spec in METRICS}
        kinds = {"counter": pb_utils.MetricFamily.COUNTER, "gauge": pb_utils.MetricFamily.GAUGE}
        self._families = [
            pb_utils.MetricFamily(
                name=spec.name, description=spec.description, kind=kinds[spec.kind]
            )
            for spec in METRICS
        ]
        self._shown = {
            spec.name: family.Metric(labels={"model": model_name})
            for spec, family in zip(METRICS, self._families, strict=True)
        }
        self._reported = dict.fromkeys(self._shown, 0.0)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(_METRICS_INTERVAL_S):
            self._report()
        self._report()

    def _report(self) -> None:
        try:
            self._copy()
        except Exception:  # what was not copied will be next time
            _logger.exception("metrics could not be copied to Triton")

    def _copy(self) -> None:
        for name, value in self._metrics.snapshot().items():
            if value == self._reported[name]:
                continue
            if self._kinds[name] == "counter":
                self._shown[name].increment(value - self._reported[name])
            else:
                self._shown[name].set(value)
            self._reported[name] = value


def _check_environment() -> None:
    """Fail the load where a server would only crash later."""
    if int(np.__version__.split(".")[0]) >= 2:
        raise KobartError(
            f"numpy {np.__version__} of {sys.executable} breaks string tensors in this backend: "
            "put a Python with numpy < 2 first on the server's PATH"
        )
    found = Path(kobart_runtime.__file__ or "").parent
    if not found.samefile(_FOLDER / "kobart_runtime"):
        raise KobartError(f"kobart_runtime came from {found}, not from the build in {_FOLDER}")


def _read_call(request: Any) -> Call:
    """Triton's request as a call.

    Raises:
        InvalidArgumentError: There is no text, a parameter is unknown, or an input has not exactly
            one value.
    """
    parameters = _read_parameters(request)
    _check_parameters(parameters)
    values = {tensor.name(): _single_value(tensor) for tensor in request.inputs()}
    if bindings.TEXT_INPUT not in values:
        raise InvalidArgumentError(f"{bindings.TEXT_INPUT} is missing: send some text")
    return Call(
        text=values.pop(bindings.TEXT_INPUT),
        stream=bool(values.pop(bindings.STREAM, False)),
        settings=values,
        timeout_s=_timeout_s(request, parameters),
    )


def _read_parameters(request: Any) -> dict[str, Any]:
    """Triton passes a caller's bytes on: they need not be text."""
    try:
        return dict(json.loads(request.parameters() or "{}"))
    except ValueError as error:
        raise InvalidArgumentError(
            f"the names and values of all fields must be valid UTF-8, got {error}"
        ) from error


def _check_parameters(parameters: dict[str, Any]) -> None:
    unknown = sorted(set(parameters) - _PROTOCOL_PARAMETERS)
    if unknown:
        raise InvalidArgumentError(
            f"unknown field {', '.join(unknown)}: valid are {', '.join(_INPUT_NAMES)}"
        )


def _single_value(tensor: Any) -> Any:
    array = tensor.as_numpy()
    if array.size != 1:
        raise InvalidArgumentError(f"{tensor.name()} must have 1 value, got {array.size}")
    return array.reshape(()).item()


def _timeout_s(request: Any, parameters: dict[str, Any]) -> float | None:
    """The timeout of gRPC, or over HTTP the parameter of that name; both in microseconds."""
    timeout_us = request.timeout() or parameters.get("timeout") or 0
    try:
        timeout_us = float(timeout_us)
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"timeout must be a number of microseconds, got {timeout_us!r}"
        ) from None
    if timeout_us < 0:
        raise InvalidArgumentError(f"timeout must be at least 0 microseconds, got {timeout_us:g}")
    return timeout_us / 1e6 or None


def _triton_error(error: KobartError) -> Any:
    name = next((name for kind, name in _CODES.items() if isinstance(error, kind)), "INTERNAL")
    return pb_utils.TritonError(error.status_message, getattr(pb_utils.TritonError, name))


def _strings(text: str) -> np.ndarray:
    return np.array([text.encode("utf-8")], dtype=np.object_)


def _int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)
