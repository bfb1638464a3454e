"""A folder that appears whole or not at all.

It grows as a hidden sibling `.NAME.PID.tmp` of the output and is renamed at the end. What a
killed build leaves behind stays hidden, and the next build of the same output clears it away.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kobart_runtime.errors import BuildError
from kobart_runtime.model_config import MANIFEST_NAME


def check_output(output: Path, *, force: bool, marker: str = MANIFEST_NAME) -> None:
    """Refuse an output that must not be written or replaced.

    Args:
        output: The folder to be written.
        force: Replace what lies there.
        marker: The file by which a folder is known to be ours to replace.

    Raises:
        BuildError: It exists and `force` is off, it is something else than ours, or it could not
            be made.
    """
    _check_writable(output)
    if not output.exists() or _is_empty_folder(output):
        return
    if not (output / marker).is_file():
        raise BuildError(
            f"{output} exists and is not a build of ours (no {marker}): choose another --output"
        )
    if not force:
        raise BuildError(f"{output} exists: give --force to replace it, or another --output")


def _check_writable(output: Path) -> None:
    """Refuse what could not be made in the end, before the work."""
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise BuildError(
            f"{output} cannot be made: {parent} is no folder that you may write to; choose another "
            "--output"
        )


@contextmanager
def staged(output: Path, *, force: bool, marker: str = MANIFEST_NAME) -> Iterator[Path]:
    """Give a temporary sibling of `output`; leaving the block without an error renames it.

    Raises:
        BuildError: See `check_output`.
    """
    check_output(output, force=force, marker=marker)
    output.parent.mkdir(parents=True, exist_ok=True)
    _clear_stale(output)
    folder = _sibling(output, "tmp")
    folder.mkdir()
    try:
        yield folder
        check_output(
            output, force=force, marker=marker
        )  # another build may have finished meanwhile
        _replace(output, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(output: Path, folder: Path) -> None:
    """Swap by two renames; after a kill between them the next build restores the old one."""
    if not output.exists():
        folder.rename(output)
        return
    old = _sibling(output, "old")
    output.rename(old)
    folder.rename(output)
    shutil.rmtree(old)


def _clear_stale(output: Path) -> None:
    """Remove what dead builds of this output left; a build of ours by this pid is dead too."""
    pattern = re.compile(rf"\.{re.escape(output.name)}\.(\d+)\.(tmp|old)")
    for path in sorted(output.parent.iterdir()):
        match = pattern.fullmatch(path.name)
        if not match or (int(match[1]) != os.getpid() and _is_alive(int(match[1]))):
            continue
        if match[2] == "old" and not output.exists():
            path.rename(output)
        else:
            shutil.rmtree(path)


def _sibling(output: Path, suffix: str) -> Path:
    return output.parent / f".{output.name}.{os.getpid()}.{suffix}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
