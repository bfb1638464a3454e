"""Requests and responses as protobuf messages; no server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from client import ServerError
from client.protocol import build_request, read_response
from kobart_runtime.errors import InvalidArgumentError
from kobart_runtime.settings import SETTING_NAMES


def test_only_what_is_given_is_sent() -> None:
    request = build_request("kobart", "가나다", {}, stream=False)
    assert [tensor.name for tensor in request.inputs] == ["text_input"]
    assert request.inputs[0].contents.bytes_contents[0].decode() == "가나다"


def test_every_setting_has_its_datatype() -> None:
    values = {
        "num_beams": 2,
        "max_new_tokens": 3,
        "min_new_tokens": 0,
        "no_repeat_ngram_size": 15,
        "repetition_penalty": 1.5,
        "length_penalty": 2,
        "early_stopping": False,
    }
    assert set(values) == set(SETTING_NAMES)
    request = build_request("kobart", "x", values, stream=True)
    sent = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in request.inputs}
    assert sent == {
        "text_input": ("BYTES", [1]),
        "stream": ("BOOL", [1]),
        "num_beams": ("INT32", [1]),
        "max_new_tokens": ("INT32", [1]),
        "min_new_tokens": ("INT32", [1]),
        "no_repeat_ngram_size": ("INT32", [1]),
        "repetition_penalty": ("FP32", [1]),
        "length_penalty": ("FP32", [1]),
        "early_stopping": ("BOOL", [1]),
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": True}, r"num_beams must be int, got True \(bool\)"),
        ({"num_beams": 4.0}, r"num_beams must be int, got 4\.0 \(float\)"),
        ({"num_beams": None}, "num_beams must be int, got None"),
        ({"num_beams": 4294967300}, "num_beams must fit 32 bits, got 4294967300"),
        ({"length_penalty": "1"}, r"length_penalty must be float, got '1' \(str\)"),
        ({"length_penalty": True}, "length_penalty must be float, got True"),
        ({"early_stopping": 1}, r"early_stopping must be bool, got 1 \(int\)"),
        ({"beams": 4}, "unknown setting beams: valid are num_beams, max_new_tokens"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        build_request("kobart", "x", settings, stream=False)


def test_text_that_utf8_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="lone surrogate at character 2"):
        build_request("kobart", "가나\ud800", {}, stream=False)
    with pytest.raises(InvalidArgumentError, match="text must be a str, got bytes"):
        build_request("kobart", b"x", {}, stream=False)  # type: ignore[arg-type]


def test_an_answer_without_an_output_names_it() -> None:
    response = service_pb2.ModelInferResponse(model_name="other")
    response.outputs.add(name="output_ids", datatype="INT32", shape=[1])
    response.raw_output_contents.append(np.array([1], np.int32).tobytes())
    with pytest.raises(ServerError, match="'other' has no text_output"):
        read_response(response)
