"""An engine that fails on one request, through the real server; and what the log says of texts."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from client import KobartClient
from client.errors import ServerError
from kobart_runtime.errors import KobartError
from server.supervisor import TritonServer
from tests.conftest import MINI_CHECKPOINT
from tests.patience import PATIENCE_S
from tests.triton.conftest import NO_RETRY, running
from tests.triton.grpc_stream import error_of, infer_request, stream
from tests.triton.http_api import generate, post, settled_metrics
from tests.triton.limited import limited_copy

pytestmark = pytest.mark.triton

MARKER = "두루미가 비밀번호를"  # a text that no log may hold
POISON = f"{MARKER} 건네주었다고 한다."
LONG: dict[str, Any] = {"num_beams": 8, "max_new_tokens": 256, "min_new_tokens": 256}

# Appended to the runner of a copy of the build. The caches have been written when it raises.
_POISONED_RUNNER = """

_healthy_step = OnnxRuntimeRunner.decode_step


def _poisoned_step(self, cache, inputs, *, want_logits):
    output = _healthy_step(self, cache, inputs, want_logits=want_logits)
    num_requests = len(inputs.position_ids)
    lengths = cache.encoder_attention_mask[:num_requests].sum(axis=1)
    if ((lengths == {num_tokens}) & (inputs.position_ids[:, 0] == 3)).any():
        raise MemoryError("no memory for {num_tokens} tokens")
    return output


OnnxRuntimeRunner.decode_step = _poisoned_step
"""


# Appended to the front model of a copy: an answer of 3 tokens cannot be sent, nor can one of 4 and
# the error in its place.
_BRITTLE_SINK = """

_healthy_answer, _healthy_send = _ResponseSink.send, _ResponseSink._send


def _brittle_answer(self, answer, *, final):
    self.num_tokens = answer.num_output_tokens
    if self.num_tokens in (3, 4):
        raise MemoryError("no memory for the answer")
    _healthy_answer(self, answer, final=final)


def _brittle_send(self, response, *, final):
    if getattr(self, "num_tokens", 0) == 4:
        raise MemoryError("no memory for the error either")
    _healthy_send(self, response, final=final)


_ResponseSink.send, _ResponseSink._send = _brittle_answer, _brittle_send
"""


@dataclass(frozen=True)
class Faulty:
    server: TritonServer
    log: Path

    def log_without_texts(self) -> str:
        text = self.log.read_text(encoding="utf-8")
        assert MARKER not in text
        assert MARKER.encode("unicode_escape").decode() not in text
        return text


@pytest.fixture(scope="module")
def faulty(mini_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """A server whose engine fails on sources of as many tokens as the poison has."""
    folder = tmp_path_factory.mktemp("faulty")
    build = limited_copy(mini_build, folder / "build", max_queue_size=12)
    tokenizer = Tokenizer.from_file(str(MINI_CHECKPOINT / "tokenizer.json"))
    num_tokens = len(tokenizer.encode(POISON).ids)
    runner = build / "kobart" / "1" / "kobart_runtime" / "onnxruntime_runner.py"
    healthy = runner.read_text(encoding="utf-8")
    runner.unlink()  # it may be a hard link
    runner.write_text(healthy + _POISONED_RUNNER.format(num_tokens=num_tokens), encoding="utf-8")
    with running(build, folder / "log") as server:
        yield Faulty(server, folder / "log")


@pytest.mark.parametrize("with_stream", [False, True])
def test_a_poisoned_request_fails_alone(
    faulty: Faulty, dialogues: list[str], with_stream: bool
) -> None:
    texts = [text[: 60 + 7 * number] for number, text in enumerate(dialogues[:6])]
    settings = {"num_beams": 2, "max_new_tokens": 24, "min_new_tokens": 24}
    with (
        KobartClient(faulty.server.grpc_url, timeout_s=PATIENCE_S, retry=NO_RETRY) as client,
        ThreadPoolExecutor(len(texts) + 1) as pool,
    ):

        def run(text: str) -> str | KobartError:
            try:
                if not with_stream:
                    return client.summarize(text, **settings).text
                return "".join(chunk.text for chunk in client.stream(text, **settings))
            except KobartError as error:
                return error

        alone = [run(text) for text in texts]
        before = settled_metrics(faulty.server)
        together = list(pool.map(run, [POISON, *texts]))
        after = settled_metrics(faulty.server)
    assert isinstance(together[0], ServerError)
    assert "no memory for" in str(together[0])
    assert together[1:] == alone
    assert after["requests_failed"] - before["requests_failed"] == 1
    assert after["requests_finished"] - before["requests_finished"] == len(texts)
    assert "no memory for" in faulty.log_without_texts()


def test_a_request_whose_answer_cannot_be_sent_ends(mini_build: Path, tmp_path: Path) -> None:
    """With an error, or at least without leaving its caller and an unload to wait for ever."""
    build = limited_copy(mini_build, tmp_path / "build")
    model = build / "kobart" / "1" / "model.py"
    text = model.read_text(encoding="utf-8") + _BRITTLE_SINK
    model.unlink()  # it may be a hard link
    model.write_text(text, encoding="utf-8")
    with running(build, tmp_path / "log") as server:

        def answer(num_tokens: int) -> dict[str, Any]:
            length: dict[str, Any] = {"max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
            return generate(server, text_input=POISON, num_beams=1, **length)

        assert answer(2)["num_output_tokens"] == 2
        assert "no memory for the answer" in answer(3)["error"]
        assert answer(4)["error"]  # Triton's own
        values = settled_metrics(server)
        ends = {name: values[f"requests_{name}"] for name in ("finished", "cancelled", "failed")}
        assert ends == {"finished": 1, "cancelled": 1, "failed": 1}
        server.api.unload("kobart")


def test_no_text_reaches_the_log(faulty: Faulty) -> None:
    """Whatever goes wrong with it: refused, misspelt, no UTF-8, out of time, cancelled, failed."""
    url = faulty.server.grpc_url
    for values in (
        {"text_input": POISON},
        {"text_input": MARKER, "num_beams": 99},
        {"text_input": MARKER, "top_k": 1},
        {"text_input": [MARKER, MARKER]},
        {"text_input": MARKER.encode() + b"\xff"},
        {"text_input": MARKER * 30000},
    ):
        assert error_of(url, infer_request(values))
    timed = {"timeout": 50_000}
    assert "DEADLINE" in error_of(url, infer_request({"text_input": MARKER, **LONG}, timed))
    assert "error" in generate(faulty.server, text_input=MARKER, timeout=50_000, **LONG)
    assert "error" in generate(faulty.server, text_input=MARKER, **{MARKER: MARKER})
    assert "error" in generate(faulty.server, text_input=MARKER, num_beams=MARKER)
    assert "error" in generate(faulty.server, text_input={MARKER: MARKER})
    for body in (f'{{"text_input": "{MARKER}', MARKER, f'["{MARKER}"]'):
        assert post(faulty.server, "models/kobart/generate", body.encode())[0] != 200
    with contextlib.ExitStack() as stack:  # above the queue, and cancelled in all states
        for _ in range(60):
            request = infer_request({"text_input": MARKER, "stream": True, **LONG})
            stack.enter_context(stream(url, request))
        time.sleep(0.5)
    settled_metrics(faulty.server)
    faulty.log_without_texts()


def test_the_log_is_what_it_seems(faulty: Faulty) -> None:
    """The check above would find a text."""
    shutil.copy(faulty.log, copy := faulty.log.with_suffix(".copy"))
    with copy.open("a", encoding="utf-8") as log:
        log.write(f"request 3: {POISON}\n")
    with pytest.raises(AssertionError):
        Faulty(faulty.server, copy).log_without_texts()
