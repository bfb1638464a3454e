"""What is wrong with a request is said with code, field, value and limit; nothing else suffers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from client import KobartClient
from kobart_runtime.errors import InvalidArgumentError
from server.supervisor import TritonServer
from tests.triton.grpc_stream import error_of, infer_request
from tests.triton.http_api import generate, metrics, post, settled_metrics
from tests.triton.oracle import Oracle

pytestmark = pytest.mark.triton

TEXT = "내일 오후 두 시에 만나기로 했다."
MEBIBYTE = 1 << 20
NAN, INFINITY = float("nan"), float("inf")
UNK = 5

# Wrong fields and what the message says after INVALID_ARGUMENT.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"text_input": ""}, "text_input is empty or blank"),
    ({"text_input": " \n\t\u3000"}, "text_input is empty or blank"),
    ({"text_input": "a" * MEBIBYTE}, f"text_input has {MEBIBYTE} bytes, limit 524288"),
    ({"text_input": "가" * 174763}, "text_input has 524289 bytes, limit 524288"),
    ({"num_beams": 0}, "num_beams must be 1..8, got 0"),
    ({"num_beams": 9}, "num_beams must be 1..8, got 9"),
    ({"num_beams": -(2**31)}, "num_beams must be 1..8, got -2147483648"),
    ({"max_new_tokens": 0}, "max_new_tokens must be 1..256, got 0"),
    ({"max_new_tokens": 257}, "max_new_tokens must be 1..256, got 257"),
    ({"min_new_tokens": -1}, "min_new_tokens must be at least 0, got -1"),
    ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size must be at least 0, got -1"),
    ({"repetition_penalty": 0.0}, "repetition_penalty must be a finite number above 0"),
    ({"repetition_penalty": -1.5}, "repetition_penalty must be a finite number above 0"),
    ({"repetition_penalty": NAN}, "repetition_penalty must be a finite number above 0"),
    ({"repetition_penalty": INFINITY}, "repetition_penalty must be a finite number above 0"),
    ({"length_penalty": NAN}, "length_penalty must be a finite number"),
    ({"length_penalty": INFINITY}, "length_penalty must be a finite number"),
    ({"length_penalty": -INFINITY}, "length_penalty must be a finite number"),
]


@pytest.fixture(autouse=True)
def unharmed(client: KobartClient) -> Iterator[None]:
    """The request after a bad one is answered as ever."""
    before = client.summarize(TEXT, max_new_tokens=6)
    yield
    assert client.summarize(TEXT, max_new_tokens=6) == before


def _name(case: object) -> str:
    return str(case)[:50] if isinstance(case, dict) else ""


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=_name)
def test_refused_over_both_protocols(
    triton: TritonServer, fields: dict[str, Any], message: str
) -> None:
    values = {"text_input": TEXT, **fields}
    told = error_of(triton.grpc_url, infer_request(values))
    assert told.startswith(f"INVALID_ARGUMENT: {message}")
    assert str(next(iter(fields.values())))[:6] in told or "text_input" in fields
    assert generate(triton, **values) == {"error": told}


def test_the_client_raises_it_typed(client: KobartClient) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^num_beams must be 1\.\.8, got 9$"):
        client.summarize(TEXT, num_beams=9)


@pytest.mark.parametrize("value", [2, "2", 'quoted "\\ value', ""])
def test_a_misspelt_setting_is_refused_with_the_valid_ones(
    triton: TritonServer, value: int | str
) -> None:
    request = infer_request({"text_input": TEXT}, {"num_beam": value})
    told = error_of(triton.grpc_url, request)
    assert told.startswith("INVALID_ARGUMENT: unknown field num_beam: valid are text_input,")
    assert "no_repeat_ngram_size" in told
    assert generate(triton, text_input=TEXT, num_beam=value) == {"error": told}


def test_an_unknown_tensor_is_refused_by_triton(triton: TritonServer) -> None:
    request = infer_request({"text_input": TEXT, "num_beam": 2})
    assert "unexpected inference input 'num_beam'" in error_of(triton.grpc_url, request)


@pytest.mark.parametrize(
    "fields", [{"num_beams": [2, 2]}, {"text_input": [TEXT, TEXT]}, {"text_input": []}], ids=str
)
def test_more_or_less_than_one_value_is_refused(
    triton: TritonServer, fields: dict[str, Any]
) -> None:
    (name,) = fields
    values = {"text_input": TEXT, **fields}
    assert name in error_of(triton.grpc_url, infer_request(values))
    assert name in generate(triton, **values)["error"]


@pytest.mark.parametrize("text", [b"\xff\xfe", "안녕".encode("cp949"), "가".encode()[:2]])
def test_bytes_that_are_no_utf8(triton: TritonServer, text: bytes) -> None:
    told = error_of(triton.grpc_url, infer_request({"text_input": text}))
    assert told.startswith("INVALID_ARGUMENT: text_input is not valid UTF-8 at byte 0")


@pytest.mark.parametrize(
    "body", [b'{"text_input": "a", "\xa1": 1}', b'{"text_input": "a", "x": "\xe1\xff"}']
)
def test_fields_that_are_no_utf8(triton: TritonServer, body: bytes) -> None:
    status, answer = post(triton, "models/kobart/generate", body)
    assert status == 400
    assert "INVALID_ARGUMENT: the names and values of all fields must be valid UTF-8" in answer


def test_a_broken_string_tensor(triton: TritonServer) -> None:
    """Raw contents whose length prefix promises more bytes than there are."""
    request = infer_request({"text_input": TEXT})
    request.inputs[0].ClearField("contents")
    request.raw_input_contents.append(b"\xff\xff\xff\x7fab")
    assert "text_input" in error_of(triton.grpc_url, request)


@pytest.mark.parametrize(
    "body",
    [
        '{"text_input": "a", "num_beams": 4.5}',
        '{"text_input": "a", "num_beams": null}',
        '{"text_input": "a", "num_beams": "4"}',
        '{"text_input": "a", "early_stopping": 1}',
        '{"text_input": "a", "stream": "yes"}',
        '{"text_input": "a", "length_penalty": {}}',
        '{"text_input": 3}',
        '{"text_input": "\\ud800"}',
        '{"num_beams": 4}',
        "{}",
        "[]",
        "not json",
        "",
    ],
)
def test_wrong_json_gets_tritons_own_error(triton: TritonServer, body: str) -> None:
    status, answer = post(triton, "models/kobart/generate", body.encode())
    assert status in (400, 500)
    error = json.loads(answer)["error"]
    assert error
    assert not error.startswith("INTERNAL: ")  # as our own would be


def test_refusals_are_counted(triton: TritonServer) -> None:
    before = settled_metrics(triton)
    generate(triton, text_input=TEXT, num_beams=9)
    generate(triton, text_input="")
    generate(triton, text_input=TEXT, num_beam=9)
    after = settled_metrics(triton)
    assert after["requests_received"] - before["requests_received"] == 3
    assert after["requests_rejected"] - before["requests_rejected"] == 3
    assert metrics(triton)["requests_failed"] == 0


@pytest.mark.parametrize(
    "text",
    ["결과는 </s> 그대로다.", "<s>시작</s>", "<usr>안녕<sys>", "<unused0><pad><mask>", "＜/s＞"],
)
def test_typed_control_tokens_are_text(client: KobartClient, oracle: Oracle, text: str) -> None:
    source_ids = oracle.source_ids(text, special_as_text=True)
    assert set(source_ids) & set(range(107)) <= {UNK}
    summary = client.summarize(text, num_beams=2, max_new_tokens=12)
    assert summary.num_input_tokens == len(source_ids)
    assert summary.output_ids == oracle.generate(source_ids, num_beams=2, max_new_tokens=12)
