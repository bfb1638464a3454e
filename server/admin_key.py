"""The key that guards everything in Triton's API that can change what a server runs.

Loading a model is running its code, and a web page may send a POST to a port of this machine: the
guarded APIs want the key in a header, always, on loopback too.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kobart_runtime.errors import ConfigError

KEY_HEADER = "kobart-serve-key"  # over HTTP
GRPC_KEY_HEADER = f"triton-grpc-protocol-{KEY_HEADER}"  # the prefix is Triton's own
KEY_VARIABLE = "KOBART_ADMIN_KEY"
# `config` and `file:` parameters of a load are code; logs, traces and shared memory name files.
GUARDED_APIS = ("model-repository", "logging", "trace", "shared-memory")

_MIN_LENGTH = 16
_FORM = re.compile(rf"[A-Za-z0-9._-]{{{_MIN_LENGTH},}}")  # Triton's flag splits at , : and =


@dataclass(frozen=True)
class AdminKey:
    """A key and where it was taken from."""

    value: str
    place: str  # shown to operators; never the value

    def __post_init__(self) -> None:
        if not _FORM.fullmatch(self.value):
            raise ConfigError(
                f"the admin key of {self.place} must be {_MIN_LENGTH} or more letters, digits, "
                f". _ or -, got {len(self.value)} characters: make one with "
                "python3 -c 'import secrets; print(secrets.token_hex(32))'"
            )

    def __repr__(self) -> str:
        return f"AdminKey(place={self.place!r})"  # a traceback must not show the value

    @property
    def headers(self) -> dict[str, str]:
        """What an HTTP request to a guarded API has to carry."""
        return {KEY_HEADER: self.value}

    @property
    def grpc_headers(self) -> dict[str, str]:
        """What a gRPC call to a guarded API has to carry."""
        return {GRPC_KEY_HEADER: self.value}


def given_key(file: Path | None, environment: Mapping[str, str] = os.environ) -> AdminKey | None:
    """The operator's key: of the file, else of `KOBART_ADMIN_KEY`; None if neither is given.

    Raises:
        ConfigError: The file cannot be read, or the key is not of the right form.
    """
    if file is not None:
        try:
            value = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfigError(f"--admin-key-file {file} cannot be read: {reason}") from error
        return AdminKey(value, place=str(file))
    if KEY_VARIABLE in environment:
        return AdminKey(environment[KEY_VARIABLE].strip(), place=KEY_VARIABLE)
    return None


def random_key(file: Path) -> AdminKey:
    """A new key, written to a file that only this user may read."""
    value = secrets.token_hex(32)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(f"{value}\n")
    return AdminKey(value, place=str(file))
