"""What TensorRT says where it was given too little workspace, and what to do then."""

from __future__ import annotations

import re
from collections.abc import Iterable

MIB = 1 << 20
_REQUESTED = re.compile(r"Requested size was (\d+) bytes")
_TOO_SMALL = re.compile(r"OutOfMemory|within workspace limit|insufficient workspace")


def workspace_remedy(errors: Iterable[str]) -> str | None:
    """How much workspace is missing and which flag gives it.

    Args:
        errors: Messages of TensorRT's log.

    Returns:
        None where they do not speak of the workspace.
    """
    texts = [text for text in errors if _TOO_SMALL.search(text)]
    if not texts:
        return None
    requested = [int(found) for text in texts for found in _REQUESTED.findall(text)]
    if not requested:
        return "the workspace is too small: raise --workspace-mib, or leave it out for no limit"
    mib = -(-max(requested) // MIB)
    return (
        f"a layer needs {mib} MiB of workspace: give --workspace-mib {mib} or more, or leave it "
        "out for no limit"
    )
