"""Every error that the client raises can be caught by a name of the package."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import client
from client import errors
from client.errors import error_from_status
from kobart_runtime import errors as runtime_errors
from kobart_runtime.errors import KobartError
from tests.conftest import REPOSITORY


def library_files() -> list[Path]:
    """The files of `client` that what it exports loads."""
    program = """
import client, sys
for name in client.__all__:
    getattr(client, name)
print(*(name for name in sys.modules if name.startswith("client.")))
"""
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return [
        REPOSITORY / f"{name.replace('.', '/')}.py"
        for name in loaded.stdout.split()
        if (REPOSITORY / f"{name.replace('.', '/')}.py").is_file()
    ]


def is_error(name: str) -> bool:
    found = getattr(errors, name, None) or getattr(runtime_errors, name, None)
    return inspect.isclass(found) and issubclass(found, KobartError)


def test_every_error_that_the_client_names_is_exported() -> None:
    files = library_files()
    assert REPOSITORY / "client" / "protocol.py" in files
    named = {
        node.id
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and is_error(node.id)
    }
    assert {"InvalidArgumentError", "OverloadedError", "ConfigError", "KobartError"} <= named
    assert named <= set(client.__all__)


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(client, name) for name in client.__all__)
    assert client.__all__ == sorted(client.__all__)


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "?"]
)
def test_an_error_of_the_server_is_one_of_the_exported(code: str) -> None:
    for message in (f"{code}: said by the model", "said by gRPC", "unknown model"):
        error = error_from_status(code, message, url="localhost:1", model="kobart")
        assert type(error).__name__ in client.__all__
