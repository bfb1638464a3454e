"""One tritonserver process: start it on builds, know when it is ready, drain and stop it."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from server.admin_key import AdminKey, random_key
from server.build_folder import BuildFolders
from server.command import server_command
from server.drain import drain
from server.endpoints import Endpoints, free_ports
from server.installation import Installation, find_installation
from server.private_folder import PrivateFolder
from server.process import ServerProcess
from server.repository_api import NEVER_LOADED, ModelState, RepositoryApi, ServerError
from server.serving_flags import require_serving_options, server_environment
from server.watchdog import Watchdog

__all__ = ["ServerError", "TritonServer", "free_ports"]

_POLL_S = 0.05
# After draining, Triton needs half a second; an open gRPC stream or a lost request keeps it for
# ever, and nothing is gained by waiting.
_EXIT_S = 5.0


class TritonServer:
    """A tritonserver on one build or more; a context manager that starts and stops it."""

    def __init__(
        self,
        *builds: Path,
        models: Sequence[str] | None = None,
        host: str = "127.0.0.1",
        http_port: int = 8000,
        grpc_port: int = 8001,
        metrics_port: int = 8002,
        exit_timeout_s: float = 30.0,
        admin_key: AdminKey | None = None,
        environment: Mapping[str, str] | None = None,
        hold_log: bool = False,
        log: TextIO | None = None,
    ) -> None:
        """Check the settings; nothing is started yet.

        Args:
            builds: Build folders; their models' names must differ.
            models: The models to load; none means the front models, `all` every one.
            host: IPv4 address of the interface to listen on.
            http_port: For HTTP requests.
            grpc_port: For gRPC requests.
            metrics_port: For Prometheus.
            exit_timeout_s: How long accepted requests may take after `stop`.
            admin_key: What the guarded APIs want in a header; default: a random one.
            environment: Variables of the server beside the inherited ones, such as those of
                `kobart_runtime.serving_options`.
            hold_log: Show the log only once the server is ready, or has died without a reason.
            log: Where the server's log goes; default: standard error.

        Raises:
            BuildError: A folder is not a build, has no such model, or one of another build, or its
                runtime would ignore `environment`.
            ConfigError: The host is not an IPv4 address, or a port is out of range.
        """
        self.builds = BuildFolders.read(builds)
        self.models = self.builds.select(models or ())
        self.endpoints = Endpoints(
            host=host, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port
        )
        self._environment = dict(environment or {})
        if self._environment:
            require_serving_options(self.builds)
        self._exit_timeout_s = exit_timeout_s
        self._hold_log = hold_log
        self._log_sink = log or sys.stderr
        self._key = admin_key
        self._process: ServerProcess | None = None
        self._links: dict[str, str] = {}  # what Triton calls a build's folder -> what users do

    def __enter__(self) -> TritonServer:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._started().is_running:
            self.stop()
        self.kill()

    @property
    def http_url(self) -> str:
        """Base of Triton's HTTP API, `http://127.0.0.1:8000`."""
        return self.endpoints.http_url

    @property
    def grpc_url(self) -> str:
        """Host and port, as `tritonclient.grpc` takes them."""
        return self.endpoints.grpc_url

    @property
    def metrics_url(self) -> str:
        """Prometheus metrics, `http://127.0.0.1:8002/metrics`."""
        return self.endpoints.metrics_url

    @property
    def admin_key(self) -> AdminKey:
        """What the guarded APIs want in a header.

        Raises:
            ServerError: The server was not started, and no key was given.
        """
        if self._key is None:
            raise ServerError("the server was not started: call start()")
        return self._key

    @property
    def api(self) -> RepositoryApi:
        """The repository API, with the key.

        Raises:
            ServerError: The server was not started, and no key was given.
        """
        endpoints = self.endpoints
        return RepositoryApi(
            endpoints.reachable_host, endpoints.http_port, headers=self.admin_key.headers
        )

    @property
    def pid(self) -> int:
        """Process id of the server.

        Raises:
            ServerError: It was not started.
        """
        return self._started().pid

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the server and wait until its models are ready.

        Raises:
            ConfigError: No server can be found, or a port is taken.
            ServerError: It died, a model failed to load, or the time is over.
        """
        self.launch()
        self.wait_ready(timeout_s)

    def launch(self) -> None:
        """Start the process; see `wait_ready`.

        Raises:
            ConfigError: No server can be found, or a port is taken.
        """
        self.endpoints.require_free()
        installation = find_installation()
        private = PrivateFolder()
        try:
            self._start_process(installation, private)
        except BaseException:
            private.remove()
            raise

    def _start_process(self, installation: Installation, private: PrivateFolder) -> None:
        self._key = self._key or random_key(private.key_file)
        shared_memory_prefix = f"kobart-serve-{secrets.token_hex(8)}-"
        links = private.link(self.builds.paths)
        self._links = {
            f"{link}/": f"{path}/" for link, path in zip(links, self.builds.paths, strict=True)
        }
        command = server_command(
            installation,
            repositories=links,
            models=self.models,
            endpoints=self.endpoints,
            exit_timeout_s=self._exit_timeout_s,
            key=self.admin_key,
            shared_memory_prefix=shared_memory_prefix,
        )
        self._process = ServerProcess(
            command,
            # Python models import from the working directory first: let that be a build.
            folder=self.builds.paths[0],
            environment=server_environment(
                installation.environment, self._environment, self.builds, self.models
            ),
            log=self._log_sink,
            hold_log=self._hold_log,
            shared_memory_prefix=shared_memory_prefix,
            private_folder=private,
        )

    def wait_ready(self, timeout_s: float, cancelled: threading.Event | None = None) -> bool:
        """Wait until every model is ready.

        Args:
            timeout_s: How long at most.
            cancelled: Ends the waiting early.

        Returns:
            False if the waiting was cancelled.

        Raises:
            ServerError: The server died, a model failed to load, or the time is over.
        """
        cancelled = cancelled or threading.Event()
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if time.monotonic() > deadline:
                self._started().show_log()
                raise ServerError(f"tritonserver is not ready after {timeout_s:g} s")
            if cancelled.wait(_POLL_S):
                return False
        self._started().show_log()
        return True

    def check_alive(self) -> None:
        """Look whether the server still runs.

        Raises:
            ServerError: It does not; says how it ended.
        """
        self._started().check()

    def watchdog(self) -> Watchdog:
        """A watchdog over the models of this server; make it once they are ready."""
        return Watchdog(self.pid, self.api, self.models)

    def stop(self, timeout_s: float | None = None) -> bool:
        """Refuse new requests, answer the accepted ones, end the process.

        Args:
            timeout_s: How long requests may take; default: the exit timeout.

        Returns:
            Whether every accepted request is known to be answered.

        Raises:
            ServerError: The server was not started, or died before it was told to end.
        """
        process = self._started()
        deadline = time.monotonic() + (self._exit_timeout_s if timeout_s is None else timeout_s)
        drained = drain(self.api, self.models, self.metrics_url, deadline=deadline)
        process.check()
        if drained:
            process.terminate(_EXIT_S)
        process.kill()
        return drained

    def kill(self) -> None:
        """End the server and its models at once; does nothing if they have ended."""
        if self._process:
            self._process.kill()

    def _is_ready(self) -> bool:
        self.check_alive()
        # Triton opens the port of its metrics after it has begun to answer over HTTP.
        if not self.api.is_live() or not self.endpoints.are_open():
            return False
        states = self.api.states()
        for model in self.models:
            self._require_ready(model, states.get(model, NEVER_LOADED))
        return True

    def _require_ready(self, model: str, state: ModelState) -> None:
        if state.state == "READY":
            return
        if not state.reason:  # Triton could not even read its config: only the log says so
            self._started().show_log()
        reason = state.reason or "see the server's log above"
        for link, path in self._links.items():
            reason = reason.replace(link, path)
        raise ServerError(f"model {model} failed to load: {reason}")

    def _started(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("the server was not started: call start()")
        return self._process
