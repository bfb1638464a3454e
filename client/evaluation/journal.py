"""The documents that an evaluation has finished, on disk, so that it can go on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

from client.evaluation.outcome import Outcome
from client.report.writing import write_whole
from kobart_runtime.errors import ConfigError

DOCUMENTS_FILE = "documents.jsonl"
INPUTS_FILE = "inputs.json"


class Journal:
    """One line a finished document, in the order in which they finished."""

    def __init__(self, folder: Path, inputs: dict[str, object]) -> None:
        """Open a folder, and read what an earlier run of the same inputs finished.

        Args:
            folder: Exists and can be written.
            inputs: What the answers depend on.

        Raises:
            ConfigError: The folder holds an evaluation of other inputs.
        """
        self._path = folder / DOCUMENTS_FILE
        self._require_same(folder / INPUTS_FILE, inputs)
        self.outcomes = self._read()
        # A line that a killed run left half written goes away.
        write_whole(self._path, "".join(_line(outcome) for outcome in self.outcomes))
        self._file = self._path.open("a", encoding="utf-8")

    def add(self, outcome: Outcome) -> None:
        """Keep one document.

        Raises:
            ConfigError: It cannot be written; a full disk, for example.
        """
        try:
            self._file.write(_line(outcome))
            self._file.flush()
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written ({error.strerror})") from error
        self.outcomes.append(outcome)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _require_same(self, path: Path, inputs: dict[str, object]) -> None:
        text = json.dumps(inputs, ensure_ascii=False, indent=1) + "\n"
        if path.is_file() and self._path.is_file() and path.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{path.parent} holds an evaluation of other inputs ({path.name} names them): "
                "choose another --output, or delete the folder"
            )
        write_whole(path, text)

    def _read(self) -> list[Outcome]:
        if not self._path.is_file():
            return []
        outcomes = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                outcomes.append(Outcome.from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                break
        return outcomes


def _line(outcome: Outcome) -> str:
    return json.dumps(outcome.to_json(), ensure_ascii=False) + "\n"
