"""What a server must know of a build: its models and which of them is the front model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import MANIFEST_NAME

ALL_MODELS = "all"
_REMEDY = "make one with kobart-build and pass its folder, such as build/kobart-fp32"


@dataclass(frozen=True, kw_only=True)
class BuildFolder:
    """A folder that Triton can take as its model repository."""

    path: Path  # absolute
    front_model: str
    models: tuple[str, ...]  # every model of the folder, sorted

    @classmethod
    def read(cls, path: Path) -> BuildFolder:
        """Look at a folder.

        Only the manifest's name is read, so that a build of another version can be served:
        it carries its own runtime.

        Raises:
            BuildError: There is no such folder, or it is not a build.
        """
        if not path.is_dir():
            raise BuildError(f"there is no folder {path}: {_REMEDY}")
        front_model = _front_model(path / MANIFEST_NAME)
        models = tuple(sorted(config.parent.name for config in path.glob("*/config.pbtxt")))
        if front_model not in models:
            raise BuildError(
                f"{path} has no model {front_model}, which its manifest names: {_REMEDY}"
            )
        return cls(path=path.resolve(), front_model=front_model, models=models)

    def select(self, names: Sequence[str]) -> tuple[str, ...]:
        """The models to load: the front model if none is named, every one for `all`.

        Raises:
            BuildError: A name is not a model of this build.
        """
        if not names:
            return (self.front_model,)
        if ALL_MODELS in names:
            return self.models
        for name in names:
            if name not in self.models:
                known = ", ".join((*self.models, ALL_MODELS))
                raise BuildError(f"{self.path} has no model {name}: choose from {known}")
        return tuple(dict.fromkeys(names))


def _front_model(manifest: Path) -> str:
    if not manifest.is_file():
        raise BuildError(f"{manifest.parent} is not a build (no {manifest.name}): {_REMEDY}")
    try:
        name = json.loads(manifest.read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{manifest} cannot be read ({error!r}): {_REMEDY}") from error
    if not isinstance(name, str):
        raise BuildError(f"{manifest}: name must be text, got {name!r}: {_REMEDY}")
    return name
