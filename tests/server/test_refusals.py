from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kobart_runtime.errors import BuildError, ConfigError
from server.cli import main
from server.endpoints import Endpoints, free_ports
from server.repository_api import short_reason
from server.supervisor import TritonServer
from tests.server.echo_build import make_build


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda build: build.rename(build.with_name("elsewhere")), "there is no folder"),
        (lambda build: (build / "manifest.json").unlink(), "is not a build (no manifest.json)"),
        (lambda build: (build / "manifest.json").write_text("{"), "cannot be read"),
        (lambda build: (build / "manifest.json").write_text('{"name": 3}'), "must be text, got 3"),
        (lambda build: (build / "echo").rename(build / "other"), "has no model echo"),
    ],
)
def test_what_is_not_a_build_is_refused(
    build: Path, capsys: pytest.CaptureFixture[str], prepare: object, message: str
) -> None:
    prepare(build)  # type: ignore[operator]
    assert main([str(build)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "kobart-build" in error
    assert error.count("\n") == 1


def test_an_unknown_model_is_refused_with_the_known_ones(
    build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(build), "--model", "kobart"]) == 2
    assert "has no model kobart: choose from echo, all" in capsys.readouterr().err


def test_two_builds_with_a_model_of_one_name_are_refused(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_build(tmp_path / "other")
    assert main([str(build), str(other)]) == 2
    assert capsys.readouterr().err == (
        f"kobart-serve: {build} and {other} both have a model echo: make one of them with another "
        "kobart-build --model-name\n"
    )


def test_no_build_at_all_is_refused() -> None:
    with pytest.raises(BuildError, match="no build was named: make one with kobart-build"):
        TritonServer()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "example.org"}, "must be an IPv4 address"),
        ({"http_port": 0}, "--http-port must be 1..65535, got 0"),
        ({"grpc_port": 70000}, "--grpc-port must be 1..65535, got 70000"),
        ({"grpc_port": 8000}, "the ports must differ"),
    ],
)
def test_impossible_endpoints_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Endpoints(**settings)  # type: ignore[arg-type]


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_free_port_is_for_the_server_it_was_asked_for() -> None:
    """Whoever runs beside it, and asks for a port before the server has started, gets another."""
    (port,) = free_ports(1)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    Endpoints(http_port=port).require_free()
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (
            "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: "
            "TritonModelException: INTERNAL: no engine\n\nAt:\n  /b/m/1/model.py(2): f\n;\n",
            "INTERNAL: no engine",
        ),
        (
            "Internal: KeyError: 'x'\n\nAt:\n  /b/m/1/model.py(2): initialize\n",
            "Internal: KeyError: 'x' (at /b/m/1/model.py(2): initialize)",
        ),
        ("failed to poll from model repository", "failed to poll from model repository"),
    ],
)
def test_a_load_error_becomes_one_line(reason: str, line: str) -> None:
    assert short_reason(reason) == line
