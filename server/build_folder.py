"""What a server must know of its builds: their models and which of them are front models."""

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


@dataclass(frozen=True)
class BuildFolders:
    """The builds of one server, whose models' names all differ."""

    builds: tuple[BuildFolder, ...]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> BuildFolders:
        """Look at folders.

        Raises:
            BuildError: There is none, one is missing or not a build, or two have a model of the
                same name.
        """
        if not paths:
            raise BuildError(f"no build was named: {_REMEDY}")
        builds = tuple(BuildFolder.read(path) for path in paths)
        owners: dict[str, BuildFolder] = {}
        for build in builds:
            for model in build.models:
                other = owners.setdefault(model, build)
                if other is not build:
                    raise BuildError(
                        f"{other.path} and {build.path} both have a model {model}: make one of "
                        "them with another kobart-build --model-name"
                    )
        return cls(builds)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The folders, absolute, in the order given."""
        return tuple(build.path for build in self.builds)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model of all builds."""
        return tuple(model for build in self.builds for model in build.models)

    def select(self, names: Sequence[str]) -> tuple[str, ...]:
        """The models to load: the front models if none is named, every one for `all`.

        Raises:
            BuildError: A name is not a model of these builds.
        """
        if not names:
            return tuple(build.front_model for build in self.builds)
        if ALL_MODELS in names:
            return self.models
        for name in names:
            if name not in self.models:
                known = ", ".join((*self.models, ALL_MODELS))
                folders = ", ".join(map(str, self.paths))
                raise BuildError(f"{folders} has no model {name}: choose from {known}")
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
