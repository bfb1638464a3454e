"""A build around the echo model: what kobart-serve needs of one, and no more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_ECHO = Path(__file__).parent / "echo"


def make_build(folder: Path, *, name: str = "echo", **parameters: object) -> Path:
    add_model(folder, name, **parameters)
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "name": name}))
    return folder


def add_model(folder: Path, name: str, **parameters: object) -> None:
    """Copy the echo model; `load_error` fails its load, `load_seconds` makes it slow."""
    shutil.copytree(_ECHO, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = folder / name / "config.pbtxt"
    text = config.read_text().replace('name: "echo"', f'name: "{name}"')
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    config.write_text(text)
