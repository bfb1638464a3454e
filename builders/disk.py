"""Errors of the disk that something is written to, in one line: path, room and remedy."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kobart_runtime.errors import BuildError

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL_BYTES = 1 << 20  # a disk with less free counts as full


def check_room(output: Path, least_bytes: int) -> None:
    """Refuse what cannot fit, before the work.

    Args:
        output: The file or folder to be written; it need not exist yet.
        least_bytes: What it will take at least.

    Raises:
        BuildError: The disk has less free; names both and the remedy.
    """
    disk = _existing_parent(output)
    free = _free_bytes(disk)
    if free < least_bytes:
        raise BuildError(
            f"{output} needs at least {_mib(least_bytes)}, the disk of {disk} has {_mib(free)} "
            "free: free some, or choose another --output"
        )


@contextmanager
def disk_errors(output: Path, least_bytes: int = 0) -> Iterator[None]:
    """Explain a disk that fails while `output` is written; other errors pass as they are.

    Args:
        output: The file or folder that is written; it need not exist yet.
        least_bytes: What it takes at least, 0 if that is unknown.

    Raises:
        BuildError: The disk is full or may not be written to; names path, need, room and remedy.
    """
    disk = _existing_parent(output)
    free_before = _free_bytes(disk)
    try:
        yield
    except (OSError, RuntimeError) as error:
        # PyTorch's and ONNX Runtime's writers raise RuntimeError and do not say why.
        is_full = _free_bytes(disk) < FULL_BYTES
        code = error.errno if isinstance(error, OSError) else None
        if code in FULL and not is_full and _free_bytes(Path(tempfile.gettempdir())) < FULL_BYTES:
            raise BuildError(
                f"the temporary folder {tempfile.gettempdir()} is full: free some of it, or set "
                "TMPDIR to a folder on a larger disk"
            ) from error
        if code in FULL or (is_full and (code is None or code == errno.EIO)):
            need = f"needs more than {_mib(least_bytes)} and " if least_bytes else ""
            raise BuildError(
                f"{output} {need}did not fit: the disk of {disk} had {_mib(free_before)} free when "
                "it was begun; free some, or choose another --output"
            ) from error
        path = Path(getattr(error, "filename", None) or output).absolute()
        if code in FORBIDDEN and path.is_relative_to(disk):
            raise BuildError(
                f"{path} cannot be written: {os.strerror(code)}; choose another --output, or get "
                "permission to write there"
            ) from error
        raise


def _existing_parent(output: Path) -> Path:
    return next(folder for folder in output.absolute().parents if folder.is_dir())


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
