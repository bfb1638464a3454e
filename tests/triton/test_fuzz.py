"""Anything at all is sent: each gets an answer or the right error, and no harm is done."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import KobartClient
from kobart_runtime.settings import SETTING_NAMES
from server.supervisor import TritonServer
from tests.patience import PATIENCE_S
from tests.triton.grpc_stream import infer_request, responses
from tests.triton.http_api import post, settled_metrics

pytestmark = pytest.mark.triton

TEXT = "내일 오후 두 시에 만나기로 했다."
CASES = [25, pytest.param(500, marks=pytest.mark.chaos)]
GRPC_METHODS = ("ModelStreamInfer", "ModelInfer", "ModelMetadata", "RepositoryIndex")
INT32 = {"num_beams": (1, 8), "max_new_tokens": (1, 256), "min_new_tokens": (0, None)}
INT32 |= {"no_repeat_ngram_size": (0, None)}

# Ranges in which most values are fine and cheap, and all others now and then.
any_int32 = st.integers(-(2**31), 2**31 - 1)
any_float = st.floats(width=32)
any_text = st.one_of(
    st.text(max_size=60), st.text(alphabet="가각힣ㄱㅏ a\n\u3000🙂\u200d", max_size=60)
)
some_settings = st.fixed_dictionaries(
    {"max_new_tokens": st.integers(1, 4) | any_int32.filter(lambda n: not 4 < n <= 256)},
    optional={
        "num_beams": st.integers(1, 3) | any_int32,
        "min_new_tokens": st.integers(0, 9) | any_int32,
        "no_repeat_ngram_size": st.integers(0, 3) | any_int32,
        "repetition_penalty": st.floats(0.5, 3.0, width=32) | any_float,
        "length_penalty": st.floats(-2.0, 3.0, width=32) | any_float,
        "early_stopping": st.booleans(),
        "stream": st.booleans(),
    },
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
any_fields = st.dictionaries(
    st.sampled_from(["text_input", "stream", *SETTING_NAMES, "timeout", "id"])
    | st.text(min_size=1, max_size=12),
    any_json,
    max_size=6,
)


def check(count: int, strategy: st.SearchStrategy[Any], body: Callable[[Any], None]) -> None:
    """Call `body` with so many values."""
    config = settings(max_examples=count, deadline=None, derandomize=True, database=None)
    quiet = settings(config, suppress_health_check=list(HealthCheck))
    quiet(given(strategy)(body))()


@pytest.fixture(autouse=True)
def unharmed(triton: TritonServer, client: KobartClient) -> Iterator[None]:
    """The process lives, nothing is on its way, and the next request is answered as ever."""
    before = client.summarize(TEXT, max_new_tokens=6)
    yield
    triton.check_alive()
    assert client.summarize(TEXT, max_new_tokens=6) == before
    assert settled_metrics(triton)["requests_failed"] == 0


def is_valid(text: bytes, values: dict[str, Any]) -> bool:
    """The contract's table, written a second time."""
    try:
        if not text.decode("utf-8").strip():
            return False
    except UnicodeDecodeError:
        return False
    for name, (low, high) in INT32.items():
        value = values.get(name, low)
        if value < low or (high is not None and value > high):
            return False
    repetition, length = (values.get(f"{name}_penalty", 1.0) for name in ("repetition", "length"))
    return math.isfinite(repetition) and repetition > 0 and math.isfinite(length)


@pytest.mark.parametrize("count", CASES)
def test_any_text_and_any_settings(triton: TritonServer, count: int) -> None:
    def body(case: tuple[bytes, dict[str, Any]]) -> None:
        text, values = case
        *chunks, last = responses(triton.grpc_url, infer_request({"text_input": text, **values}))
        assert not any(chunk.error for chunk in chunks)
        if is_valid(text, values):
            assert last.outputs.finish_reason in ("stop", "length")
            assert 1 <= last.outputs.num_output_tokens <= values["max_new_tokens"]
        else:
            assert last.error.startswith("INVALID_ARGUMENT: "), last

    texts = st.binary(max_size=40) | any_text.map(lambda text: text.encode())
    check(count, st.tuples(texts, some_settings), body)


@pytest.mark.parametrize("count", CASES)
def test_any_json(triton: TritonServer, count: int) -> None:
    """Triton's own errors over HTTP are 400 and 500; ours are 400 and begin with their code."""

    def body(case: tuple[bool, dict[str, Any]]) -> None:
        with_text, fields = case
        given_text = {"text_input": TEXT, "max_new_tokens": 3} if with_text else {}
        status, told = post(
            triton, "models/kobart/generate", json.dumps({**given_text, **fields}).encode()
        )
        answer = json.loads(told)
        assert status in (200, 400, 500)
        assert ("error" in answer) == (status != 200), told
        if status == 200:
            assert answer["finish_reason"]

    check(count, st.tuples(st.booleans(), any_fields), body)


@pytest.mark.parametrize("count", CASES)
def test_bodies_that_are_hardly_json(triton: TritonServer, count: int) -> None:
    good = json.dumps({"text_input": TEXT, "max_new_tokens": 3, "num_beams": 2}).encode()

    def body(damage: tuple[int, bytes]) -> None:
        position, garbage = damage
        start = position % len(good)
        spoiled = good[:start] + garbage + good[start + len(garbage) :]
        for endpoint in ("generate", "generate_stream", "infer"):
            status, told = post(triton, f"models/kobart/{endpoint}", spoiled)
            # 501: Triton has no `infer` for models that may send several answers.
            assert status in (200, 400, 500, 501), told

    check(count, st.tuples(st.integers(0, 500), st.binary(max_size=12)), body)


@pytest.mark.parametrize("count", CASES)
def test_messages_that_are_hardly_protobuf(triton: TritonServer, count: int) -> None:
    good = infer_request({"text_input": TEXT, "max_new_tokens": 3}).SerializeToString()
    with grpc.insecure_channel(triton.grpc_url) as channel:

        def body(case: tuple[str, int, bytes, bool]) -> None:
            method, position, garbage, is_noise = case
            start = position % len(good)
            spoiled = good[:start] + garbage + good[start + len(garbage) :]
            call_bytes(channel, method, garbage if is_noise else spoiled)

        case = st.tuples(
            st.sampled_from(GRPC_METHODS), st.integers(0, 500), st.binary(max_size=9), st.booleans()
        )
        check(count, case, body)


def call_bytes(channel: grpc.Channel, method: str, message: bytes) -> None:
    """Send bytes as a request; it is answered, or refused with a status, in time."""
    call = channel.stream_stream(f"/inference.GRPCInferenceService/{method}")
    answers = call(iter([message]), timeout=PATIENCE_S)
    with contextlib.suppress(grpc.RpcError):
        list(answers)
    assert answers.code() != grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("count", CASES)
def test_tensors_of_any_type_and_shape(triton: TritonServer, count: int) -> None:
    datatypes = ["BYTES", "BOOL", "INT32", "INT64", "UINT8", "FP16", "FP32", "FP64", "FP8", ""]

    def body(case: tuple[str, str, list[int], bytes]) -> None:
        name, datatype, shape, raw = case
        request = infer_request({})
        for tensor, kind, dims, content in (
            ("text_input", "BYTES", [1], np.array([len(TEXT.encode())], "<u4").tobytes()),
            (name, datatype, shape, raw),
        ):
            request.inputs.add(name=tensor, datatype=kind, shape=dims)
            request.raw_input_contents.append(
                content + TEXT.encode() if tensor == "text_input" and dims == [1] else content
            )
        answers = responses(triton.grpc_url, request)
        assert answers
        assert not any(answer.error.startswith("INTERNAL") for answer in answers)

    names = st.sampled_from(["text_input", "stream", *SETTING_NAMES, "max_new_token", ""])
    shapes = st.lists(st.integers(-1, 3), max_size=3)
    case = st.tuples(names, st.sampled_from(datatypes), shapes, st.binary(max_size=12))
    check(count, case, body)
