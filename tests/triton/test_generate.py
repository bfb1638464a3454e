"""The front model's answers, over HTTP and gRPC, with every tensor's type and meaning."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest

from client import KobartClient
from server.supervisor import TritonServer
from tests.triton.grpc_stream import infer_request, responses
from tests.triton.http_api import generate, generate_stream
from tests.triton.oracle import Oracle

pytestmark = pytest.mark.triton

EOS = 1
OUTPUTS = {
    "text_output": ("BYTES", [1]),
    "finish_reason": ("BYTES", [1]),
    "num_input_tokens": ("INT32", [1]),
    "num_output_tokens": ("INT32", [1]),
    "truncated": ("BOOL", [1]),
}
SETTINGS = [
    {},
    {"num_beams": 1},
    {"num_beams": 1, "no_repeat_ngram_size": 0, "repetition_penalty": 1.5},
    {"num_beams": 2, "max_new_tokens": 7},
    {"num_beams": 6, "no_repeat_ngram_size": 15, "length_penalty": 2.0, "early_stopping": False},
    {"num_beams": 8, "min_new_tokens": 20, "max_new_tokens": 40, "repetition_penalty": 1.2},
    {"num_beams": 4, "length_penalty": -1.0, "no_repeat_ngram_size": 2},
    {"num_beams": 4, "min_new_tokens": 50, "max_new_tokens": 20},
]


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_equals_transformers(
    client: KobartClient, oracle: Oracle, dialogues: list[str], settings: dict[str, float]
) -> None:
    for text in dialogues[:2]:
        expected = oracle.generate(oracle.source_ids(text), **settings)
        assert client.summarize(text, **settings).output_ids == expected


@pytest.mark.parametrize("line_end", ["\r\n", "\r"], ids=["CRLF", "CR"])
def test_line_ends_change_no_summary(
    triton: TritonServer,
    client: KobartClient,
    oracle: Oracle,
    dialogues: list[str],
    line_end: str,
) -> None:
    """Over HTTP and gRPC, and what transformers gives for the text with LF."""
    text = dialogues[0]
    assert "\n" in text
    expected = oracle.generate(oracle.source_ids(text))
    changed = text.replace("\n", line_end)
    assert client.summarize(changed) == client.summarize(text)
    assert client.summarize(changed).output_ids == expected
    assert generate(triton, text_input=changed) == generate(triton, text_input=text)


def test_every_field_of_an_http_answer(
    triton: TritonServer, oracle: Oracle, dialogues: list[str]
) -> None:
    answer = generate(triton, text_input=dialogues[0])
    assert answer == {
        "model_name": "kobart",
        "model_version": "1",
        "text_output": answer["text_output"],
        "finish_reason": "stop",
        "num_input_tokens": len(oracle.source_ids(dialogues[0])),
        "num_output_tokens": len(answer["output_ids"]),
        "truncated": False,
        "output_ids": answer["output_ids"],
    }
    assert answer["text_output"].strip()
    assert answer["output_ids"][-1] == EOS


def test_a_settings_field_over_http_is_obeyed(triton: TritonServer, dialogues: list[str]) -> None:
    answer = generate(triton, text_input=dialogues[0], max_new_tokens=5, early_stopping=False)
    assert answer["num_output_tokens"] == 5


def test_an_eos_forced_by_the_limit_is_length(client: KobartClient, dialogues: list[str]) -> None:
    for num_beams in (1, 4):
        cut = client.summarize(dialogues[0], max_new_tokens=5, num_beams=num_beams)
        assert cut.finish_reason == "length"
        assert cut.num_output_tokens == len(cut.output_ids) == 5
        assert cut.output_ids[-1] == EOS


def test_an_eos_chosen_before_the_limit_is_stop(client: KobartClient, dialogues: list[str]) -> None:
    whole = client.summarize(dialogues[0], num_beams=1)
    assert whole.finish_reason == "stop"
    room = whole.num_output_tokens + 1
    assert client.summarize(dialogues[0], num_beams=1, max_new_tokens=room) == whole
    cut = client.summarize(dialogues[0], num_beams=1, max_new_tokens=room - 1)
    assert (cut.output_ids, cut.finish_reason) == (whole.output_ids, "length")


def test_tensors_of_unary_answers(triton: TritonServer, dialogues: list[str]) -> None:
    (answer,) = responses(triton.grpc_url, infer_request({"text_input": dialogues[0]}))
    assert answer.is_final
    num_ids = answer.outputs.num_output_tokens
    assert answer.tensors == {**OUTPUTS, "output_ids": ("INT32", [num_ids])}


@pytest.mark.parametrize("num_beams", [1, 4])
def test_chunks_add_up_over_grpc(
    triton: TritonServer, client: KobartClient, dialogues: list[str], num_beams: int
) -> None:
    request = infer_request({"text_input": dialogues[0], "stream": True, "num_beams": num_beams})
    answers = responses(triton.grpc_url, request)
    chunks = [answer.outputs for answer in answers]
    for answer, chunk in zip(answers, chunks, strict=True):
        assert answer.tensors == {**OUTPUTS, "output_ids": ("INT32", [len(chunk.output_ids)])}
    assert [answer.is_final for answer in answers] == [False] * (len(answers) - 1) + [True]
    assert [chunk.finish_reason for chunk in chunks] == [""] * (len(chunks) - 1) + ["stop"]
    counts = [len(chunk.output_ids) for chunk in chunks]
    assert [chunk.num_output_tokens for chunk in chunks] == list(accumulate(counts))
    assert num_beams > 1 or len(chunks) > 2  # beams may agree on nothing before the end
    whole = client.summarize(dialogues[0], num_beams=num_beams)
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert sum((chunk.output_ids for chunk in chunks), ()) == whole.output_ids
    assert {chunk.num_input_tokens for chunk in chunks} == {whole.num_input_tokens}
    assert {chunk.truncated for chunk in chunks} == {False}


@pytest.mark.parametrize("num_beams", [1, 4])
def test_server_sent_events_join_to_the_unary_answer(
    triton: TritonServer, dialogues: list[str], num_beams: int
) -> None:
    fields: dict[str, Any] = {"text_input": dialogues[1], "num_beams": num_beams}
    events = generate_stream(triton, **fields)
    whole = generate(triton, **fields)
    assert num_beams > 1 or len(events) > 2  # beams may agree on nothing before the end
    assert "".join(event["text_output"] for event in events) == whole["text_output"]
    assert [event["finish_reason"] for event in events[:-1]] == [""] * (len(events) - 1)
    last = events[-1]
    for name in ("finish_reason", "num_output_tokens", "num_input_tokens", "truncated"):
        assert last[name] == whole[name]


def test_a_long_text_is_truncated_and_says_so(client: KobartClient, dialogues: list[str]) -> None:
    text = "\n".join(dialogues)
    long = client.summarize(text, max_new_tokens=4)
    assert long.truncated
    assert long.num_input_tokens == 1024


def test_text_just_under_the_byte_limit_is_truncated(client: KobartClient) -> None:
    syllable = "가"
    text = syllable * (524288 // len(syllable.encode()))
    long = client.summarize(text, max_new_tokens=4)
    assert (long.truncated, long.num_input_tokens) == (True, 1024)
