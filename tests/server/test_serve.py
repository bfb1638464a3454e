from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from server.stubs import find_stubs
from tests.conftest import REPOSITORY
from tests.patience import wait_until
from tests.server.echo_build import add_model, make_build
from tests.server.served import Served

pytestmark = pytest.mark.triton
Serve = Callable[..., Served]


def test_says_when_it_is_ready_and_where(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    assert re.fullmatch(
        rf"echo ready in \d+\.\d s: HTTP http://127\.0\.0\.1:{served.http_port}, "
        rf"gRPC 127\.0\.0\.1:{served.grpc_port}, "
        rf"metrics http://127\.0\.0\.1:{served.metrics_port}/metrics; "
        r"admin key: header kobart-serve-key, value in \S+/admin-key\n",
        served.stdout,
    )
    assert served.generate("0 안녕하세요") == "안녕하세요"
    assert served.signal(signal.SIGTERM).wait_exit() == 0
    assert "successfully loaded 'echo'" in served.stderr
    assert served.stdout.count("\n") == 1


def test_every_interface_is_told_by_the_name_of_this_machine(build: Path, serve: Serve) -> None:
    served = serve(build, "--host", "0.0.0.0").wait_ready()
    host = socket.gethostname()
    assert f"HTTP http://{host}:{served.http_port}, gRPC {host}:{served.grpc_port}" in served.stdout
    assert "on every interface (0.0.0.0)" in served.stdout
    assert "127.0.0.1" not in served.stdout


def test_a_folder_of_any_name_is_served(tmp_path: Path, serve: Serve) -> None:
    """Triton hands repository paths to a shell."""
    served = serve(make_build(tmp_path / "한글 폴더 (1) $(touch x)")).wait_ready()
    assert served.generate("0 안녕하세요") == "안녕하세요"
    private = served.admin_key_file.parent
    assert served.signal(signal.SIGTERM).wait_exit() == 0
    assert not private.exists()
    assert not list(tmp_path.rglob("x"))
    assert not (REPOSITORY / "x").exists()


def test_loads_the_front_model_alone_unless_told_otherwise(tmp_path: Path, serve: Serve) -> None:
    build = make_build(tmp_path / "build")
    add_model(build, "echo_encoder")
    add_model(build, "echo_decoder")
    alone, every = serve(build), serve(build, "--model", "all")
    assert alone.wait_ready().stdout.startswith("echo ready")
    assert every.wait_ready().stdout.startswith("echo, echo_decoder, echo_encoder ready")
    assert every.generate("0 hi", model="echo_decoder") == "hi"
    assert [served.signal(signal.SIGTERM).wait_exit() for served in (alone, every)] == [0, 0]


def test_several_builds_on_one_server(tmp_path: Path, serve: Serve) -> None:
    builds = [make_build(tmp_path / name, name=name) for name in ("one", "two")]
    served = serve(*builds).wait_ready()
    assert served.stdout.startswith("one, two ready")
    assert served.generate("0 hi", model="one") == served.generate("0 hi", model="two") == "hi"
    (victim,) = (stub for stub in find_stubs(served.server_pid) if stub.model == "two")
    os.kill(victim.pid, signal.SIGKILL)
    assert served.generate("0 still", model="one") == "still"
    wait_until(lambda: "model two serves again" in served.stderr)
    assert served.generate("0 back", model="two") == "back"
    assert served.signal(signal.SIGTERM).wait_exit() == 0


def test_a_model_that_fails_to_load_is_named_with_its_own_reason(
    tmp_path: Path, serve: Serve
) -> None:
    reason = "INTERNAL: decoder.onnx is corrupt; build again"
    served = serve(make_build(tmp_path / "build", load_error=reason))
    assert served.wait_exit() == 1
    assert served.stdout == ""
    assert served.stderr == f"kobart-serve: model echo failed to load: {reason}\n"


def test_an_error_in_model_code_is_named_with_its_place(build: Path, serve: Serve) -> None:
    (build / "echo" / "1" / "model.py").write_text("import no_such_module\n")
    served = serve(build)
    assert served.wait_exit() == 1
    assert re.search(r"No module named 'no_such_module' \(at .*model\.py\(1\)", served.stderr)
    assert served.stderr.count("\n") == 1


def test_a_config_that_triton_cannot_read_shows_the_log(build: Path, serve: Serve) -> None:
    with (build / "echo" / "config.pbtxt").open("a") as config:
        config.write("garbage {")
    served = serve(build)
    assert served.wait_exit() == 1
    assert "Error parsing text-format" in served.stderr
    assert "model echo failed to load: see the server's log above" in served.stderr.splitlines()[-1]


def test_a_busy_port_is_named(build: Path, serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        served = serve(build, "--grpc-port", str(port))
        assert served.wait_exit() == 1
    assert f"port {port} of 127.0.0.1" in served.stderr
    assert "another --grpc-port" in served.stderr


def test_a_killed_model_process_is_replaced(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    (region,) = served.shared_memory
    stub = _stub(served)
    os.kill(stub, signal.SIGKILL)
    wait_until(lambda: "serves again" in served.stderr)
    assert served.generate("0 back") == "back"
    assert _stub(served) != stub
    assert served.signal(signal.SIGTERM).wait_exit() == 0
    assert not region.exists()


def test_a_model_that_does_not_come_back_ends_it(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    (build / "echo" / "1" / "model.py").write_text("import no_such_module\n")
    os.kill(_stub(served), signal.SIGKILL)
    assert served.wait_exit() == 1
    assert "kobart-serve: model echo died and does not load again" in served.stderr
    assert "no_such_module" in served.stderr.splitlines()[-1]


def test_a_killed_server_ends_it(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    (region,) = served.shared_memory
    os.kill(served.server_pid, signal.SIGKILL)
    assert served.wait_exit() == 1
    assert not region.exists()
    assert served.stderr.endswith("kobart-serve: tritonserver died (killed by SIGKILL)\n")


def test_a_server_that_dies_while_it_starts_is_told_at_once(tmp_path: Path, serve: Serve) -> None:
    served = serve(make_build(tmp_path / "build", load_seconds=600))
    wait_until(lambda: "tritonserver" in served.children)
    wait_until(lambda: find_stubs(served.server_pid))
    os.kill(served.server_pid, signal.SIGKILL)
    assert served.wait_exit() == 1
    assert "loading: echo" in served.stderr  # what the log said last
    assert served.stderr.endswith("kobart-serve: tritonserver died (killed by SIGKILL)\n")


def test_a_killed_kobart_serve_leaves_nothing_behind(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    server, stub, (region,) = served.server_pid, _stub(served), served.shared_memory
    private = served.admin_key_file.parent
    served.kill()
    wait_until(lambda: not any(map(_runs, (server, stub))) and not region.exists())
    wait_until(lambda: not private.exists())


def test_a_killed_guardian_is_replaced(build: Path, serve: Serve) -> None:
    served = serve(build).wait_ready()
    server, guardian = served.server_pid, served.children["guardian"]
    os.kill(guardian, signal.SIGKILL)
    wait_until(lambda: served.children.get("guardian", guardian) != guardian)
    served.kill()
    wait_until(lambda: not _runs(server))


def _runs(pid: int) -> bool:
    """Whether a process has not ended; an orphan may wait as a zombie to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def _stub(served: Served) -> int:
    (stub,) = find_stubs(served.server_pid)
    return stub.pid
