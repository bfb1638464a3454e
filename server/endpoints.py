"""Where a server listens: its interface and ports, and a clear refusal of those that are taken."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from kobart_runtime.errors import ConfigError

_ANY_INTERFACE = "0.0.0.0"
_LOOPBACK = "127.0.0.1"
_CONNECT_S = 2.0  # to a port of this machine


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """The addresses of one server."""

    host: str = _LOOPBACK  # IPv4 address of the interface to listen on
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002

    def __post_init__(self) -> None:
        try:
            ipaddress.IPv4Address(self.host)
        except ValueError as error:
            raise ConfigError(
                f"--host must be an IPv4 address ({_LOOPBACK}, or {_ANY_INTERFACE} for every "
                f"interface), got {self.host!r}"
            ) from error
        for option, port in self.ports.items():
            if not 1 <= port <= 65535:
                raise ConfigError(f"{option} must be 1..65535, got {port}")
        if len(set(self.ports.values())) < len(self.ports):
            listing = ", ".join(f"{option} {port}" for option, port in self.ports.items())
            raise ConfigError(f"the ports must differ, got {listing}")

    @property
    def ports(self) -> dict[str, int]:
        """Option name, Triton's and ours -> port."""
        return {
            "--http-port": self.http_port,
            "--grpc-port": self.grpc_port,
            "--metrics-port": self.metrics_port,
        }

    @property
    def reachable_host(self) -> str:
        """The host under which this machine reaches the server."""
        return _LOOPBACK if self.host == _ANY_INTERFACE else self.host

    @property
    def advertised(self) -> str:
        """One line for people: every address, as those who may reach the server would name it."""
        every = self.host == _ANY_INTERFACE
        host = socket.gethostname() if every else self.host
        line = (
            f"HTTP http://{host}:{self.http_port}, gRPC {host}:{self.grpc_port}, "
            f"metrics http://{host}:{self.metrics_port}/metrics"
        )
        return f"{line} on every interface ({self.host})" if every else line

    @property
    def http_url(self) -> str:
        """Base of Triton's HTTP API."""
        return f"http://{self.reachable_host}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        """Host and port, as `tritonclient.grpc` takes them."""
        return f"{self.reachable_host}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Prometheus metrics."""
        return f"http://{self.reachable_host}:{self.metrics_port}/metrics"

    def require_free(self) -> None:
        """Refuse ports that are taken, before Triton does so in the midst of its log.

        Raises:
            ConfigError: Names the port, its option and the remedy.
        """
        for option, port in self.ports.items():
            _require_bindable(self.host, port, option)

    def are_open(self) -> bool:
        """Whether every port accepts connections."""
        return all(_accepts(self.reachable_host, port) for port in self.ports.values())


def free_ports(count: int) -> list[int]:
    """Distinct ports of the loopback interface; nobody else is given them while this process lives.

    Each stays bound to a socket that does not listen. SO_REUSEADDR, which Triton sets too, lets a
    server have it nevertheless; set after binding, it does not share a port that is in use.
    """
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind((_LOOPBACK, 0))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.detach()  # stays open until the process ends
    return ports


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError:
        return False
    return True


def _require_bindable(host: str, port: int, option: str) -> None:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} cannot be used ({error.strerror}): stop the program "
                f"that has it, or pass another {option}"
            ) from error
