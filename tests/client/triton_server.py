"""The wheel's tritonserver on a model repository, for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import pytriton  # type: ignore[import-untyped]

START_TIMEOUT_S = 60.0


@dataclass
class TritonServer:
    """A running server; its model can be unloaded and loaded."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    log: Path

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(repository: Path, folder: Path) -> TritonServer:
    """Run the model `kobart` of a repository; `folder` gets the server's files and log."""
    binary = assemble(folder)
    http_port, grpc_port = free_ports(2)
    log = folder / "tritonserver.log"
    command = [
        str(binary),
        f"--backend-directory={folder / 'backends'}",
        f"--model-repository={repository}",
        "--model-control-mode=explicit",
        "--load-model=kobart",
        "--http-address=127.0.0.1",
        f"--http-port={http_port}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc_port}",
        "--allow-metrics=false",
        "--exit-timeout-secs=5",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=output, stderr=subprocess.STDOUT
        )
    server = TritonServer(process, http_port, grpc_port, log)
    try:
        wait_until_started(server)
    except BaseException:
        server.stop()
        raise
    return server


def assemble(folder: Path) -> Path:
    """The wheel's server beside the backend's stub for this Python; returns the binary."""
    wheel = Path(pytriton.__file__).parent / "tritonserver"
    for name in ("bin", "backends"):
        shutil.copytree(wheel / name, folder / name)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = folder / "backends" / "python" / "triton_python_backend_stub"
    shutil.copy(wheel / "python_backend_stubs" / version / stub.name, stub)
    binary = folder / "bin" / "tritonserver"
    for executable in (stub, binary):
        executable.chmod(0o755)
    return binary


def environment() -> dict[str, str]:
    """The stub runs the first python3 on PATH and links this Python's library."""
    libraries = [
        str(Path(pytriton.__file__).parents[1] / "nvidia_pytriton.libs"),
        str(sysconfig.get_config_var("LIBDIR")),
    ]
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
    }


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def wait_until_started(server: TritonServer) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while b"Started HTTPService" not in server.log.read_bytes():
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"tritonserver did not start:\n{server.log.read_text()[-4000:]}")
        time.sleep(0.05)
