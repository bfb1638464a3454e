"""Triton's model repository API over HTTP: which models are there, load, unload."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from typing import Any

from kobart_runtime.errors import KobartError

_QUICK_S = 5.0  # calls that only look


class ServerError(KobartError):
    """The server did not start, died, or cannot serve a model."""


@dataclass(frozen=True)
class ModelState:
    """One line of the repository's index."""

    state: str  # READY, LOADING, UNLOADING, UNAVAILABLE; empty: never loaded
    reason: str  # why it is not READY


NEVER_LOADED = ModelState(state="", reason="")


class RepositoryApi:
    """The API of one server; each call is one connection."""

    def __init__(self, host: str, port: int, headers: dict[str, str]) -> None:
        self._host = host
        self._port = port
        self._headers = headers

    def is_live(self) -> bool:
        """Whether the server answers; it does so when the models of its start are decided."""
        try:
            return self._call("GET", "/v2/health/live", _QUICK_S)[0] == 200
        except ServerError:
            return False

    def states(self) -> dict[str, ModelState]:
        """Model name -> its state.

        Raises:
            ServerError: The server does not answer.
        """
        entries = json.loads(self._post("index", _QUICK_S))
        return {entry["name"]: _state(entry) for entry in entries}

    def load(self, model: str, timeout_s: float) -> None:
        """Load a model and wait for it; one that is being unloaded is waited for first.

        Raises:
            ServerError: With the model's own reason.
        """
        self._post(f"models/{model}/load", timeout_s)

    def unload(self, model: str) -> None:
        """Refuse new requests to a model; it is gone when the accepted ones are answered.

        Raises:
            ServerError: The server does not answer.
        """
        self._post(f"models/{model}/unload", _QUICK_S)

    def _post(self, path: str, timeout_s: float) -> bytes:
        status, body = self._call("POST", f"/v2/repository/{path}", timeout_s)
        if status != 200:
            raise ServerError(short_reason(_error_of(body)))
        return body

    def _call(self, method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(method, path, headers=self._headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"tritonserver does not answer {path}: {error!r}") from error
        finally:
            connection.close()


def short_reason(reason: str) -> str:
    """A load error as one line: the model's own words, where it failed if it did not say why."""
    reason = re.sub(r"^load failed for model .*? state: ", "", reason, flags=re.DOTALL)
    words, _, place = reason.strip(" ;\n").partition("\n\nAt:\n")
    own = re.fullmatch(r"Internal: TritonModelException: (.*)", words, flags=re.DOTALL)
    line = own[1] if own else f"{words} (at {place})" if place else words
    return " ".join(line.split())


def _state(entry: dict[str, Any]) -> ModelState:
    return ModelState(state=entry.get("state", ""), reason=short_reason(entry.get("reason", "")))


def _error_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", errors="replace")
