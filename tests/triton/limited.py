"""A copy of a build with other limits, as if it had been built with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def limited_copy(build: Path, folder: Path, **limits: float) -> Path:
    """Copy a build whose engines do not depend on the limits."""
    shutil.copytree(build, folder)
    for path in folder.rglob("manifest.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["limits"] |= limits
        path.unlink()  # it may be a hard link
        path.write_text(json.dumps(manifest), encoding="utf-8")
    return folder
