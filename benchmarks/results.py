"""Results of measurements as JSON files, which appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.report.writing import write_whole


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object, indented; its folder is made if it is missing.

    Raises:
        ConfigError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
