"""Brings a model back whose process died, which Triton does not do.

Triton 2.51 goes on calling such a model READY, answers nothing, and a plain load does nothing:
unload, then load, recovers it (triton-inference-server/server#8604).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable

from server.repository_api import RepositoryApi, ServerError
from server.stubs import Stub, find_stubs

_LOAD_TIMEOUT_S = 120.0
_log = logging.getLogger(__name__)


class Watchdog:
    """Compares the models' processes with those that were there when the models got ready."""

    def __init__(self, server_pid: int, api: RepositoryApi, models: Iterable[str]) -> None:
        self._server_pid = server_pid
        self._api = api
        self._models = tuple(models)
        self._watched = self._scan()
        self._expected = Counter(stub.model for stub in self._watched)

    def check(self) -> None:
        """Reload every model that lost a process; cheap if none did.

        Raises:
            ServerError: A model does not load any more, or the server does not answer.
        """
        lost = [stub for stub in self._watched if not stub.is_alive]
        if not lost:
            return
        self._watched = self._scan()
        living = Counter(stub.model for stub in self._watched)
        for model in dict.fromkeys(stub.model for stub in lost):
            # Whoever unloaded or reloaded it through the API meant it.
            if living[model] < self._expected[model] and self._is_ready(model):
                self._reload(model)
        self._watched = self._scan()

    def _reload(self, model: str) -> None:
        started = time.monotonic()
        _log.warning("the process of model %s died: reloading it", model)
        try:
            self._api.unload(model)
            self._api.load(model, _LOAD_TIMEOUT_S)
        except ServerError as error:
            raise ServerError(f"model {model} died and does not load again: {error}") from error
        _log.warning("model %s serves again after %.1f s", model, time.monotonic() - started)

    def _is_ready(self, model: str) -> bool:
        states = self._api.states()
        return model in states and states[model].state == "READY"

    def _scan(self) -> list[Stub]:
        return [stub for stub in find_stubs(self._server_pid) if stub.model in self._models]
