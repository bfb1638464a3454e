"""A kobart-serve process as a user sees it: its output, its URLs, its exit status."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient

from server.stubs import find_stubs
from server.supervisor import free_ports
from tests.patience import PATIENCE_S, wait_until

_REPOSITORY = Path(__file__).parents[2]


class Served:
    def __init__(self, arguments: Sequence[str | Path], folder: Path) -> None:
        self.http_port, self.grpc_port, self.metrics_port = free_ports(3)
        folder.mkdir()
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        command = [sys.executable, "-m", "server.cli"]
        ports = ("http", self.http_port), ("grpc", self.grpc_port), ("metrics", self.metrics_port)
        command += [f"--{name}-port={port}" for name, port in ports]
        command += map(str, arguments)  # last: one may name another port
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(command, cwd=_REPOSITORY, stdout=stdout, stderr=stderr)

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def server_pid(self) -> int:
        """Of the tritonserver that it started."""
        return self.children["tritonserver"]

    @property
    def children(self) -> dict[str, int]:
        """Name of the program, or of its script without suffix -> process id."""
        own = self.process.pid
        found = {}
        for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                paths = [Path(word) for word in words if word and not word.startswith("-")]
                if paths:
                    script = paths[1] if paths[0].name.startswith("python") else paths[0]
                    found[script.stem] = int(pid)
        return found

    def wait_ready(self) -> Served:
        wait_until(lambda: self.stdout or self.process.poll() is not None)
        assert self.process.poll() is None, self.stderr
        return self

    def wait_exit(self) -> int:
        return self.process.wait(PATIENCE_S)

    def signal(self, number: int) -> Served:
        self.process.send_signal(number)
        return self

    @property
    def admin_key_file(self) -> Path:
        """The file that the ready line names."""
        place = re.search(r"admin key: header kobart-serve-key, value in (.+)", self.stdout)
        assert place, self.stdout
        return Path(place[1])

    @property
    def shared_memory(self) -> list[Path]:
        """The files in /dev/shm that the models have mapped."""
        stubs = find_stubs(self.server_pid)
        maps = "".join(Path(f"/proc/{stub.pid}/maps").read_text() for stub in stubs)
        return sorted({Path(path) for path in re.findall(r"/dev/shm/kobart-serve-\S+", maps)})

    def received(self) -> int:
        """Requests that the models have received, by /metrics."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        counts = re.findall(r"^kobart_requests_received\{.*\} (\S+)$", text, re.MULTILINE)
        return int(sum(map(float, counts)))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def generate(self, text: str, *, model: str = "echo", **settings: float) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=PATIENCE_S)
        try:
            body = json.dumps({"text_input": text, **settings}).encode()
            connection.request("POST", f"/v2/models/{model}/generate", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        assert response.status == 200, answer
        return str(answer["text_output"])


class EchoStream:
    """One gRPC stream to the echo model."""

    def __init__(self, grpc_port: int) -> None:
        self._answers: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
        self._client = grpcclient.InferenceServerClient(f"127.0.0.1:{grpc_port}")
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))

    def send(self, text: str) -> None:
        tensor = grpcclient.InferInput("text_input", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([text.encode()], dtype=np.object_))
        self._client.async_stream_infer("echo", [tensor])

    def receive(self) -> str:
        result, error = self._answers.get(timeout=PATIENCE_S)
        assert error is None, error
        return bytes(result.as_numpy("text_output")[0]).decode()

    def close(self) -> None:
        self._client.stop_stream()
        self._client.close()
