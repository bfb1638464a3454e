"""Raw gRPC streams to a model: what `KobartClient` hides or would never send."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from client.protocol import Response, read_response
from tests.patience import PATIENCE_S

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "FP32": "fp32_contents",
    "BYTES": "bytes_contents",
}
_DATATYPES = {
    "text_input": "BYTES",
    "stream": "BOOL",
    "num_beams": "INT32",
    "max_new_tokens": "INT32",
    "min_new_tokens": "INT32",
    "no_repeat_ngram_size": "INT32",
    "length_penalty": "FP32",
    "repetition_penalty": "FP32",
    "early_stopping": "BOOL",
}


@dataclass(frozen=True)
class RawResponse:
    """One ModelStreamInferResponse."""

    message: Any = field(repr=False)

    @property
    def error(self) -> str:
        return str(self.message.error_message)

    @property
    def is_final(self) -> bool:
        return bool(self.message.infer_response.parameters["triton_final_response"].bool_param)

    @property
    def outputs(self) -> Response:
        return read_response(self.message.infer_response)

    @property
    def tensors(self) -> dict[str, tuple[str, list[int]]]:
        """Name -> datatype and shape."""
        outputs = self.message.infer_response.outputs
        return {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in outputs}


def infer_request(
    values: Mapping[str, Any],
    parameters: Mapping[str, int | str] | None = None,
    *,
    model: str = "kobart",
) -> Any:
    """A ModelInferRequest; a value that is a list becomes a tensor of its length."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        datatype = _DATATYPES.get(name, "INT32")
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[len(items)])
        if datatype == "BYTES":
            items = [item.encode() if isinstance(item, str) else item for item in items]
        getattr(tensor.contents, _CONTENTS[datatype]).extend(items)
    for name, parameter in (parameters or {}).items():
        kind = "string_param" if isinstance(parameter, str) else "int64_param"
        setattr(request.parameters[name], kind, parameter)
    return request


@contextmanager
def stream(url: str, request: Any) -> Iterator[Any]:
    """The call of one request on a stream of its own; leaving cancels it."""
    with grpc.insecure_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelStreamInfer(iter([request]), timeout=PATIENCE_S)
        try:
            yield call
        finally:
            call.cancel()


def responses(url: str, request: Any) -> list[RawResponse]:
    """All responses to one request."""
    with stream(url, request) as call:
        return [RawResponse(message) for message in call]


def error_of(url: str, request: Any) -> str:
    """The message of the one error that a request gets."""
    answers = responses(url, request)
    assert len(answers) == 1, answers
    return answers[0].error
