"""Documents -> int8 scales of a build's activations; `python -m calibration` is the door.

    documents.py    pairs -> ids
    feeds.py        ids -> what the encoder and the decode step are fed, batch by batch
    activations.py  feeds -> the values of a graph's tensors
    histogram.py    values -> counts, batch by batch
    ranges.py       counts or values -> ranges, by entropy or by their peaks
    calibrator.py   all of it
    scales.py       the result, and its file

Any other calibrator can be driven by `encoder_feeds` and `decoder_feeds`, which are iterators of
the engines' inputs.
"""

from __future__ import annotations

from calibration.calibrator import calibrate
from calibration.documents import Document, DocumentSet, Encoders, encode_pairs
from calibration.feeds import decoder_feeds, encoder_feeds
from calibration.scales import SCALES_FILE, Scales, read_scales

__all__ = [
    "SCALES_FILE",
    "Document",
    "DocumentSet",
    "Encoders",
    "Scales",
    "calibrate",
    "decoder_feeds",
    "encode_pairs",
    "encoder_feeds",
    "read_scales",
]
