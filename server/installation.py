"""Where the real tritonserver is, and the environment it has to run in.

The one on PATH is taken as it is. Else the binary of the `nvidia-pytriton` wheel is used: its
python backend expects the stub of this Python version beside it, so a copy with the stub in
place is kept in the user's cache folder.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kobart_runtime.errors import ConfigError

_WHEEL = "nvidia-pytriton"
_STUB = Path("backends/python/triton_python_backend_stub")
_BINARY = Path("bin/tritonserver")


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A tritonserver that can be started."""

    binary: Path
    backends: Path | None  # None: where the server looks by itself
    environment: dict[str, str]  # of the server's process and, inherited, of its models


def find_installation() -> Installation:
    """The server on PATH, or the one of the wheel.

    Raises:
        ConfigError: There is neither, or this Python environment cannot run python models.
    """
    _require_numpy_1()
    on_path = shutil.which("tritonserver")
    if on_path:
        return _installed(Path(on_path).resolve())
    return _from_wheel()


def cache_folder() -> Path:
    """The project's folder in the user's cache (`XDG_CACHE_HOME`, else `~/.cache`)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "kobart-triton"


def _installed(binary: Path) -> Installation:
    backends = binary.parent.parent / "backends"
    return Installation(
        binary=binary,
        backends=backends if backends.is_dir() else None,
        environment=_environment(library_folders=[]),
    )


def _from_wheel() -> Installation:
    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        raise ConfigError(
            "no tritonserver: neither on PATH nor from the nvidia-pytriton wheel; "
            "pip install 'kobart-triton[serve]' (Linux), or run in NVIDIA's Triton image"
        )
    site_packages = Path(package.origin).parent.parent
    root = _prepared(site_packages / "pytriton" / "tritonserver")
    libraries = [site_packages / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR"))]
    return Installation(
        binary=root / _BINARY,
        backends=root / "backends",
        environment=_environment(libraries),
    )


def _prepared(wheel_root: Path) -> Path:
    """The cached copy of the wheel's server for this Python version, made if it is missing.

    Raises:
        ConfigError: The wheel has no stub for this Python, or the cache cannot be written.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel_root / "python_backend_stubs" / python / _STUB.name
    if not stub.is_file():
        raise ConfigError(f"{_WHEEL} has no python backend for Python {python}: use 3.11 or 3.12")
    version = importlib.metadata.version(_WHEEL)
    target = cache_folder() / f"tritonserver-{version}-py{python}"
    try:
        if not _is_complete(target):
            _install(wheel_root, stub, target)
    except OSError as error:
        raise ConfigError(
            f"the server cannot be copied to {target} ({error}): make the folder writable, or "
            "set XDG_CACHE_HOME to one that is"
        ) from error
    return target


def _is_complete(root: Path) -> bool:
    return (
        all(os.access(root / path, os.X_OK) for path in (_BINARY, _STUB))
        and (root / _STUB.with_name("libtriton_python.so")).is_file()
    )


def _install(wheel_root: Path, stub: Path, target: Path) -> None:
    """Copy into a temporary sibling, then rename: another process sees all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.") as temporary:
        staged = Path(temporary) / "staged"
        for name in ("bin", "backends"):
            shutil.copytree(wheel_root / name, staged / name)
        shutil.copyfile(stub, staged / _STUB)
        for path in (_BINARY, _STUB):
            (staged / path).chmod(0o755)
        _put_in_place(staged, target, discard=Path(temporary) / "replaced")


def _put_in_place(staged: Path, target: Path, discard: Path) -> None:
    try:
        staged.rename(target)
    except OSError:
        # Another process was faster, or a cache cleaner has left a part of an older copy.
        if _is_complete(target):
            return
        target.rename(discard)
        staged.rename(target)


def _environment(library_folders: list[Path]) -> dict[str, str]:
    """The environment in which the python backend finds this Python and its libraries.

    The stub runs the first `python3` on PATH and asks nothing else.
    """
    python_folder = Path(sys.executable).parent
    if not (python_folder / "python3").exists():
        raise ConfigError(f"{python_folder} has no python3, which Triton's python backend runs")
    return {
        **os.environ,
        "PATH": _prepend([python_folder], "PATH"),
        "LD_LIBRARY_PATH": _prepend(library_folders, "LD_LIBRARY_PATH"),
    }


def _prepend(folders: list[Path], variable: str) -> str:
    """A search path; no empty entry, which would mean the working directory."""
    present = os.environ.get(variable, "")
    return os.pathsep.join([*map(str, folders), *filter(None, present.split(os.pathsep))])


def _require_numpy_1() -> None:
    try:
        version = importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if not version.startswith("1."):
        raise ConfigError(
            f"{sys.executable} has numpy {version}: Triton's python backend needs numpy 1.26 "
            "(2.x aborts on text); pip install 'numpy>=1.26,<2'"
        )
