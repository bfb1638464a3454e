"""The front model's tensors as Triton's gRPC messages; no I/O.

Names and Python types are checked here, before anything is sent. Ranges are the server's
business: it knows the limits of its build.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
from tritonclient.grpc import InferResult, service_pb2

from client.errors import ServerError
from kobart_runtime import bindings
from kobart_runtime.errors import InvalidArgumentError
from kobart_runtime.settings import SETTING_NAMES, GenerationSettings

_SETTING_TYPES = get_type_hints(GenerationSettings)
_DATATYPES = {bool: "BOOL", int: "INT32", float: "FP32", str: "BYTES"}
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True, kw_only=True)
class Response:
    """The outputs of one response, as Python values."""

    text: str
    finish_reason: str  # empty on all but the last
    num_input_tokens: int
    num_output_tokens: int
    truncated: bool
    output_ids: tuple[int, ...]


def build_request(model: str, text: str, settings: Mapping[str, object], *, stream: bool) -> Any:
    """A ModelInferRequest; settings that are not given are left to the checkpoint.

    Raises:
        InvalidArgumentError: The text or a setting has the wrong type, or a name is unknown.
    """
    request = service_pb2.ModelInferRequest(model_name=model)
    _add_input(request, bindings.TEXT_INPUT, "BYTES", _encode(text))
    if stream:
        _add_input(request, bindings.STREAM, "BOOL", True)
    for name, value in settings.items():
        _check_setting(name, value)
        _add_input(request, name, _DATATYPES[_SETTING_TYPES[name]], value)
    return request


def read_response(response: Any) -> Response:
    """The outputs of a ModelInferResponse.

    Raises:
        ServerError: An output is missing: this is not the front model.
    """
    outputs = _Outputs(response)
    return Response(
        text=outputs.item(bindings.TEXT_OUTPUT).decode("utf-8"),
        finish_reason=outputs.item(bindings.FINISH_REASON).decode("utf-8"),
        num_input_tokens=outputs.item(bindings.NUM_INPUT_TOKENS),
        num_output_tokens=outputs.item(bindings.NUM_OUTPUT_TOKENS),
        truncated=outputs.item(bindings.TRUNCATED),
        output_ids=tuple(outputs.array(bindings.OUTPUT_IDS).tolist()),
    )


class _Outputs:
    """Named outputs of one response."""

    def __init__(self, response: Any) -> None:
        self._model = response.model_name
        self._result = InferResult(response)

    def array(self, name: str) -> np.ndarray:
        array = self._result.as_numpy(name)
        if array is None:
            raise ServerError(
                f"the answer of model {self._model!r} has no {name}: it is not a KoBART front model"
            )
        return array

    def item(self, name: str) -> Any:
        return self.array(name).item()


def _encode(text: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidArgumentError(f"text must be a str, got {type(text).__name__}")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"text has a lone surrogate at character {error.start}, which UTF-8 cannot carry: "
            "decode the source with errors='replace'"
        ) from error


def _check_setting(name: str, value: object) -> None:
    if name not in SETTING_NAMES:
        raise InvalidArgumentError(f"unknown setting {name}: valid are {', '.join(SETTING_NAMES)}")
    wanted = _SETTING_TYPES[name]
    # bool is a subclass of int, but num_beams=True is a mistake; an int is a fine float.
    accepted = (int, float) if wanted is float else (wanted,)
    if type(value) not in accepted:
        raise InvalidArgumentError(
            f"{name} must be {wanted.__name__}, got {value!r} ({type(value).__name__})"
        )
    if wanted is int and not -(2**31) <= value < 2**31:  # type: ignore[operator]
        raise InvalidArgumentError(f"{name} must fit 32 bits, got {value}")


def _add_input(request: Any, name: str, datatype: str, value: object) -> None:
    tensor = request.inputs.add(name=name, datatype=datatype, shape=[1])
    getattr(tensor.contents, _CONTENTS[datatype]).append(value)
