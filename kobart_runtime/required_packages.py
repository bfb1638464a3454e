"""Commands without their packages: one line that says how to install them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

OWN_PACKAGES = frozenset(
    {
        *("benchmarks", "builders", "calibration", "client", "kobart_documents"),
        *("kobart_runtime", "server", "training"),
    }
)


@contextmanager
def required_packages(command: str, extras: str = "") -> Iterator[None]:
    """Around a command's imports: end the process by exit code 1 if a package is missing.

    Args:
        command: Who needs them, such as `kobart-build`.
        extras: Of this project, in which they are: `serve,build`; empty: it always needs them.

    Raises:
        SystemExit: A package of others is missing; the message names it and the remedy.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in OWN_PACKAGES:
            raise  # a defect of ours
        wanted = f"[{extras}]" if extras else ""
        raise SystemExit(
            f"error: {command} needs the package {package}, which {sys.executable} does not have: "
            f"run `make demo` once and start .venv/bin/{command}, or pip install -e '.{wanted}' in "
            "the checkout"
        ) from None
