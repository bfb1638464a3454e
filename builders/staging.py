"""A folder that appears whole or not at all.

It grows as a hidden sibling `.NAME.TOKEN.tmp` of the output and is renamed at the end. As long as
the build runs it holds the lock of `.NAME.TOKEN.lock`. The kernel releases the lock of a killed
build, however it died and whichever container it ran in, and the next build of the same output
removes what such a build left behind.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from builders.disk import check_room, disk_errors
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
def staged(
    output: Path, *, force: bool, marker: str = MANIFEST_NAME, least_bytes: int = 0
) -> Iterator[Path]:
    """Give a temporary sibling of `output`; leaving the block without an error renames it.

    Args:
        output: The folder to be written.
        force: Replace what lies there.
        marker: The file by which a folder is known to be ours to replace.
        least_bytes: What the folder will take at least.

    Raises:
        BuildError: See `check_output`; or the disk is full or cannot be written to.
    """
    check_output(output, force=force, marker=marker)
    token = secrets.token_hex(4)
    folder = _sibling(output, token, "tmp")
    with ExitStack() as stack:
        with disk_errors(output, least_bytes):
            output.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(_sibling(output, token, "lock")))
            with _swap_lock(output):
                _clear_stale(output)
        check_room(output, least_bytes)
        try:
            with disk_errors(output, least_bytes):
                folder.mkdir()
                yield folder
                with _swap_lock(output):
                    # Another build may have finished meanwhile.
                    check_output(output, force=force, marker=marker)
                    _replace(output, folder, _sibling(output, token, "old"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _replace(output: Path, folder: Path, old: Path) -> None:
    """Swap by two renames; after a kill between them the next build restores the old one."""
    if not output.exists():
        folder.rename(output)
        return
    output.rename(old)
    folder.rename(output)
    shutil.rmtree(old)


def _clear_stale(output: Path) -> None:
    """Remove what dead builds of this output left: those whose lock is free."""
    pattern = re.compile(rf"\.{re.escape(output.name)}\.([0-9a-f]{{8}})\.lock")
    for path in sorted(output.parent.iterdir()):
        match = pattern.fullmatch(path.name)
        if not match:
            continue
        try:
            with _locked(path, wait=False):
                _clear(output, match[1])
        except Timeout:  # its build is running
            continue


def _clear(output: Path, token: str) -> None:
    old, folder = _sibling(output, token, "old"), _sibling(output, token, "tmp")
    if old.exists() and not output.exists():
        old.rename(output)
    for path in (old, folder):
        if path.exists():
            shutil.rmtree(path)


def _swap_lock(output: Path) -> AbstractContextManager[None]:
    """Held while builds of one output look at and rename what lies beside it."""
    return _locked(output.parent / f".{output.name}.lock")


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file, which is gone afterwards.

    Raises:
        Timeout: It is held elsewhere, and `wait` is off.
    """
    with FileLock(path, blocking=wait):
        try:
            yield
        finally:
            # While it is held: whoever has opened this file sees that it is gone, and tries again.
            path.unlink(missing_ok=True)


def _sibling(output: Path, token: str, suffix: str) -> Path:
    return output.parent / f".{output.name}.{token}.{suffix}"


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
