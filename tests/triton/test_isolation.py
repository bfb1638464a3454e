"""A build runs its own code, wherever the server stands and whoever else serves on this machine."""

from __future__ import annotations

import io
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from client import KobartClient
from server.admin_key import random_key
from server.command import server_command
from server.endpoints import Endpoints, free_ports
from server.installation import find_installation
from server.private_folder import PrivateFolder
from server.process import ServerProcess
from server.repository_api import RepositoryApi
from server.supervisor import TritonServer
from tests.conftest import REPOSITORY
from tests.patience import PATIENCE_S, wait_until
from tests.server.served import Served
from tests.triton.conftest import running
from tests.triton.grpc_stream import error_of, infer_request

pytestmark = pytest.mark.triton

MARK = "said by the build"


@pytest.fixture
def marked_build(mini_build: Path, tmp_path: Path) -> Path:
    """A build whose runtime has other words than the checkout's."""
    copy = tmp_path / "marked"
    shutil.copytree(mini_build, copy)
    settings = copy / "kobart" / "1" / "kobart_runtime" / "settings.py"
    source = settings.read_text(encoding="utf-8")
    assert "must be {low}..{high}" in source
    settings.unlink()  # it may be a hard link
    settings.write_text(source.replace("must be {low}", f"{MARK} {{low}}"), encoding="utf-8")
    return copy


def test_kobart_serve_from_inside_a_checkout(
    marked_build: Path, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    served = serve(marked_build).wait_ready()
    url = f"127.0.0.1:{served.grpc_port}"
    assert MARK in error_of(url, infer_request({"text_input": "a", "num_beams": 9}))


def test_a_server_whose_working_directory_is_a_checkout(marked_build: Path) -> None:
    http_port, grpc_port, metrics_port = free_ports(3)
    endpoints = Endpoints(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)
    installation = find_installation()
    prefix = f"kobart-test-{secrets.token_hex(8)}-"
    private = PrivateFolder()
    key = random_key(private.key_file)
    process = ServerProcess(
        server_command(
            installation,
            repositories=[marked_build],
            models=["kobart"],
            endpoints=endpoints,
            exit_timeout_s=1.0,
            key=key,
            shared_memory_prefix=prefix,
        ),
        folder=REPOSITORY,
        environment={**os.environ, **installation.environment, "PYTHONPATH": str(REPOSITORY)},
        log=io.StringIO(),
        hold_log=True,
        shared_memory_prefix=prefix,
        private_folder=private,
    )
    try:
        api = RepositoryApi("127.0.0.1", http_port, headers=key.headers)
        wait_until(api.is_live)
        request = infer_request({"text_input": "a", "num_beams": 9})
        assert MARK in error_of(endpoints.grpc_url, request)
    finally:
        process.kill()


def test_a_runtime_from_elsewhere_is_refused(
    mini_build: Path, tmp_path: Path, serve: Callable[..., Served]
) -> None:
    """As where a build was copied without its runtime, on a machine that has one installed."""
    copy = tmp_path / "without-runtime"
    shutil.copytree(mini_build, copy)
    shutil.rmtree(copy / "kobart" / "1" / "kobart_runtime")
    served = serve(copy)
    assert served.wait_exit() == 1
    assert "kobart_runtime" in served.stderr
    assert served.stderr.count("\n") == 1


def test_two_servers_and_two_names(triton: TritonServer, narrow: TritonServer) -> None:
    text = "내일 오후 두 시에 만나기로 했다."
    with (
        KobartClient(triton.grpc_url, timeout_s=PATIENCE_S) as one,
        KobartClient(narrow.grpc_url, model="narrow", timeout_s=PATIENCE_S) as other,
    ):
        first = one.summarize(text), other.summarize(text)
        assert first[0] != first[1]  # other weights
        assert first == (one.summarize(text), other.summarize(text))
    assert narrow.builds.models == ("narrow", "narrow_decoder", "narrow_encoder")
    assert narrow.models == ("narrow",)


def test_all_models_of_a_build_with_another_name(narrow_build: Path, tmp_path: Path) -> None:
    with running(narrow_build, tmp_path / "log", "all") as server:
        states = {name: state.state for name, state in server.api.states().items()}
    assert states == {"narrow": "READY", "narrow_decoder": "READY", "narrow_encoder": "READY"}
