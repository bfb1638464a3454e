from __future__ import annotations

import contextlib
import socket

from server.endpoints import Endpoints, free_ports


def test_ports_are_open_once_the_last_one_is() -> None:
    http_port, grpc_port, metrics_port = free_ports(3)
    endpoints = Endpoints(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)
    assert not endpoints.are_open()
    with contextlib.ExitStack() as stack:
        for port in (http_port, grpc_port):
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        assert not endpoints.are_open()
        stack.enter_context(socket.create_server(("127.0.0.1", metrics_port)))
        assert endpoints.are_open()
