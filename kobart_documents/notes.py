"""What is worth telling and no error."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Print one line on standard error."""
    print(f"note: {text}", file=sys.stderr, flush=True)
