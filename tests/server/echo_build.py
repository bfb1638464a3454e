"""A build around the echo model: what kobart-serve needs of one, and no more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_ECHO = Path(__file__).parent / "echo"


def make_build(folder: Path, *, name: str = "echo", load_error: str = "") -> Path:
    add_model(folder, name, load_error=load_error)
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "name": name}))
    return folder


def add_model(folder: Path, name: str, *, load_error: str = "") -> None:
    shutil.copytree(_ECHO, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = folder / name / "config.pbtxt"
    text = config.read_text().replace('name: "echo"', f'name: "{name}"')
    if load_error:
        text += f'parameters {{ key: "load_error" value {{ string_value: "{load_error}" }} }}\n'
    config.write_text(text)
