"""Line ends: every text has LF alone before anything else is done with it.

KoBART's tokenizers know no carriage return: each one would become `<unk>` and change the summary.
"""

from __future__ import annotations


def to_lf(text: str) -> str:
    r"""The text with "\r\n" (Windows) and a lone "\r" (old Macs) as "\n"."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
