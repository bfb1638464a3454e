"""Nothing but the key lets anyone change what a server runs, on loopback too."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from kobart_runtime.errors import ConfigError
from server.admin_key import GRPC_KEY_HEADER, KEY_HEADER, AdminKey, given_key
from tests.patience import PATIENCE_S
from tests.server.served import Served

KEY = "0123456789abcdef"

ATTACK = """\
from pathlib import Path
Path({target!r}).write_text("run")
class TritonPythonModel:
    def execute(self, requests): return []
"""
CONFIG = '{"name": "evil", "backend": "python", "max_batch_size": 0}'


@pytest.fixture
def served(build: Path, serve: Callable[..., Served]) -> Served:
    return serve(build).wait_ready()


def _post(served: Served, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", served.http_port, timeout=PATIENCE_S)
    try:
        connection.request("POST", path, body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.triton
@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_a_model_in_an_http_body_is_refused(
    served: Served, tmp_path: Path, content_type: str
) -> None:
    target = tmp_path / "target"
    code = base64.b64encode(ATTACK.format(target=str(target)).encode()).decode()
    body = json.dumps({"parameters": {"config": CONFIG, "file:1/model.py": code}}).encode()
    path = "/v2/repository/models/evil/load"
    status, answer = _post(served, path, body, **{"Content-Type": content_type})
    assert (status, "restricted" in answer) == (403, True)
    status, _ = _post(served, path, body, **{KEY_HEADER: KEY})
    assert status == 403
    assert not target.exists()


@pytest.mark.triton
def test_a_model_in_a_grpc_call_is_refused(served: Served, tmp_path: Path) -> None:
    target = tmp_path / "target"
    files = {"file:1/model.py": ATTACK.format(target=str(target)).encode()}
    with grpcclient.InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as client:
        for headers in ({}, {GRPC_KEY_HEADER: KEY}):
            with pytest.raises(InferenceServerException, match="restricted"):
                client.load_model("evil", config=CONFIG, files=files, headers=headers)
    assert not target.exists()


@pytest.mark.triton
def test_an_unload_is_refused(served: Served) -> None:
    assert _post(served, "/v2/repository/models/echo/unload")[0] == 403
    with (
        grpcclient.InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as client,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        client.unload_model("echo")
    assert served.generate("0 still") == "still"


@pytest.mark.triton
@pytest.mark.parametrize(
    "path", ["logging", "trace/setting", "models/echo/trace/setting", "repository/index"]
)
def test_logs_and_traces_are_guarded_too(served: Served, path: str) -> None:
    assert _post(served, f"/v2/{path}", b'{"log_file": "/tmp/kobart-evil"}')[0] == 403
    assert not Path("/tmp/kobart-evil").exists()


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_shared_memory_is_guarded_too(served: Served, kind: str) -> None:
    path = f"/v2/{kind}sharedmemory/region/region0/register"
    body = b'{"key": "/kobart-evil", "offset": 0, "byte_size": 64}'
    assert _post(served, path, body)[0] == 403


@pytest.mark.triton
def test_the_key_of_the_named_file_opens_them(served: Served) -> None:
    """What an operator does to reload a model."""
    file = served.admin_key_file
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    key = file.read_text().strip()
    headers = {KEY_HEADER: key}
    assert _post(served, "/v2/repository/models/echo/load", b"", **headers)[0] == 200
    with grpcclient.InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as client:
        index = client.get_model_repository_index(headers={GRPC_KEY_HEADER: key}, as_json=True)
    assert index["models"][0]["name"] == "echo"
    assert key not in served.stdout + served.stderr


@pytest.mark.triton
def test_a_given_key(
    build: Path, tmp_path: Path, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key of ours"
    file.write_text(f"{KEY}\n")
    monkeypatch.setenv("KOBART_ADMIN_KEY", "another-key-of-the-environment")
    served = serve(build, "--admin-key-file", file).wait_ready()
    assert served.admin_key_file == file
    assert _post(served, "/v2/repository/index", b"", **{KEY_HEADER: KEY})[0] == 200


def test_the_key_of_the_environment() -> None:
    key = given_key(None, {"KOBART_ADMIN_KEY": f"{KEY}\n"})
    assert key == AdminKey(KEY, place="KOBART_ADMIN_KEY")
    assert KEY not in repr(key)
    assert given_key(None, {}) is None


@pytest.mark.parametrize(
    "text", ["", "short", "0123456789 abcdef", "0123456789abcdef,=", "비밀" * 9]
)
def test_keys_that_triton_could_not_take(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"KOBART_ADMIN_KEY must be 16 or more letters, digits"):
        given_key(None, {"KOBART_ADMIN_KEY": text})
    file = tmp_path / "key"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"key must be 16 or more"):
        given_key(file, {})


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--admin-key-file .* cannot be read: No such file"):
        given_key(tmp_path / "none", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        given_key(tmp_path, {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read: it is not UTF-8"):
        given_key(tmp_path / "binary", {})
